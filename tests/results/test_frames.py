"""Run folders as data frames: their contents, damaged records and missing files."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pandas as pd
import pytest

import sdsbench
from sdsbench.core import step_log
from sdsbench.core.errors import ConfigError, DamagedFile, Unavailable
from sdsbench.results.frames import read_all, run_row, samples_of
from sdsbench.results.setting import averaged, differences
from sdsbench.results.tables.build import build
from sdsbench.results.tables.grid import grid
from sdsbench.results.tables.loaded_runs import load
from tests.results.tables.fixtures import make_record, make_samples, write_run


def test_frame_of_runs_has_one_row_per_run(tmp_path: Path) -> None:
    write_run(tmp_path, make_record("lora", 0, {"gsm8k": 0.25}, facts={"refreshes": 3.0}))
    write_run(tmp_path, make_record("sds_lora", 1, status="oom"))
    runs = sdsbench.load_runs(tmp_path).set_index("method")
    assert runs.loc["lora", "score.gsm8k.trained"] == 0.25
    assert runs.loc["lora", "facts.refreshes"] == 3.0
    assert runs.loc["lora", "config.train.batch_size"] == 8
    assert runs.loc["lora", "provenance.weights.fingerprint"] == "w0"
    assert runs.loc["sds_lora", "status"] == "oom" and runs.loc["sds_lora", "failure.message"] == "oom on purpose"
    scores = sdsbench.load_scores(tmp_path)
    assert scores[["method", "evaluation", "value"]].to_numpy().tolist() == [["lora", "gsm8k", 0.25]]


def test_damaged_records_are_named_and_left_out(tmp_path: Path) -> None:
    good = write_run(tmp_path, make_record("lora", 0, {"gsm8k": 0.25}))
    altered = write_run(tmp_path, make_record("lora", 1, {"gsm8k": 0.25}))
    cut = write_run(tmp_path, make_record("lora", 2, {"gsm8k": 0.25}))
    tree = json.loads((altered / "record.json").read_text())
    tree["scores"][0]["value"] = 0.99
    (altered / "record.json").write_text(json.dumps(tree))
    (cut / "record.json").write_bytes((cut / "record.json").read_bytes()[:200])
    runs = sdsbench.load_runs(tmp_path)
    assert runs["run_id"].tolist() == [good.name]
    assert set(runs.attrs["damaged"]) == {altered.name, cut.name}
    assert "checksum" in runs.attrs["damaged"][altered.name]


def test_frame_holds_one_record_of_each_run_from_several_folders(tmp_path: Path) -> None:
    """Runs may have different keys; if a run failed in one folder and finished in another, the finished one counts."""
    finished = make_record("dora", 0, {"gsm8k": 0.5}, facts={"only_here": 1.0})
    failed = make_record("dora", 0, status="failed").model_copy(update={"run_id": finished.run_id})
    write_run(tmp_path / "a", failed)
    write_run(tmp_path / "b", finished)
    write_run(tmp_path / "a", make_record("lora", 1, {"boolq": 0.25}))
    write_run(tmp_path / "b", make_record("sds_lora", 2, {"gsm8k": 0.75}))
    for places in ([tmp_path / "a", tmp_path / "b"], [tmp_path / "b", tmp_path / "a"]):
        frame = sdsbench.load_runs(places)
        rows = [run_row(one.folder, one.record) | {"origin": one.origin} for one in read_all(places)[0]]
        pd.testing.assert_frame_equal(frame, pd.DataFrame(rows), check_like=True)
        assert frame.set_index("method").loc["dora", "status"] == "done"


def test_same_run_in_two_folders_counts_once(tmp_path: Path) -> None:
    record = make_record("lora", 0, {"gsm8k": 0.25})
    write_run(tmp_path / "a", record)
    write_run(tmp_path / "b", record)
    assert len(sdsbench.load_runs([tmp_path / "a", tmp_path / "b"])) == 1
    record.scores[0].value = 0.5
    write_run(tmp_path / "c", record)
    runs = sdsbench.load_runs([tmp_path / "a", tmp_path / "c"])
    assert len(runs) == 1 and not runs.attrs["damaged"]
    ((found,), _) = read_all([tmp_path / "a", tmp_path / "c"])
    assert found.origin == str(tmp_path / "a")
    (copy,) = found.copies
    assert copy.origin == str(tmp_path / "c") and "gsm8k (flexible, trained) 25.00 and 50.00" in copy.disagreement


def test_damaged_copy_is_named_beside_the_readable_one_whatever_the_order(tmp_path: Path) -> None:
    record = make_record("lora", 0, {"gsm8k": 0.25})
    write_run(tmp_path / "good", record)
    cut = write_run(tmp_path / "cut", record)
    (cut / "record.json").write_bytes((cut / "record.json").read_bytes()[:200])
    for places in ([tmp_path / "good", tmp_path / "cut"], [tmp_path / "cut", tmp_path / "good"]):
        ((found,), damaged) = read_all(places)
        assert found.origin == str(tmp_path / "good") and [*damaged] == [str(cut)]
        runs, named = load(places)
        (line,) = [text for text in build(grid(runs), runs, named).footer if text.startswith("Excluded runs")]
        assert str(cut) in line and "damaged" in line


def test_steps_and_answers_of_a_run_are_counted_once_and_none_of_a_damaged_run(tmp_path: Path) -> None:
    steps = [{"kind": "train", "step": 1, "loss": 2.0}]
    for place, seed in (("a", 0), ("b", 0), ("b", 1)):
        record = make_record("lora", seed, {"gsm8k": 0.5})
        last = write_run(tmp_path / place, record, {"gsm8k": make_samples([True, False])}, steps)
    (last / "record.json").write_text("{}")
    places = [tmp_path / "a", tmp_path / "b"]
    for frame, rows in ((sdsbench.load_steps(places), 1), (sdsbench.load_samples(places), 2)):
        assert len(frame) == rows and [*frame.attrs["damaged"]] == [last.name]


def test_frames_of_steps_and_samples_can_be_selected(tmp_path: Path) -> None:
    steps = [{"kind": "train", "step": 1, "loss": 2.0}, {"kind": "probe", "step": 1, "rank": 3.0}]
    folder = write_run(tmp_path, make_record(), {"glue/rte": make_samples([True, False])}, steps)
    with (folder / "metrics.jsonl").open("a") as file:
        file.write('{"kind": "train", "st')
    assert sdsbench.load_steps(tmp_path)["kind"].tolist() == ["train", "probe"]
    assert sdsbench.load_steps(tmp_path, kind="train")["loss"].tolist() == [2.0]
    described = {line.partition('"kind": "')[2].partition('"')[0] for line in (step_log.__doc__ or "").splitlines()}
    assert described - {""} == {*step_log.KINDS}, "every kind that is written can be selected"
    samples = sdsbench.load_samples(tmp_path)
    assert samples["evaluation"].tolist() == ["glue/rte"] * 2
    assert samples["scorer.flexible"].tolist() == [1.0, 0.0]
    assert len(sdsbench.load_samples(tmp_path, evaluation="glue/rte")) == 2
    with pytest.raises(ConfigError, match=r"evaluation='gsm8k': accepted: glue/rte"):
        sdsbench.load_samples(tmp_path, evaluation="gsm8k")
    with pytest.raises(
        ConfigError, match=r"kind='trian': accepted: train, method, eval, probe, held_out, memory\. Did you"
    ):
        sdsbench.load_steps(tmp_path, kind="trian")


def test_missing_and_damaged_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="no such folder of runs"):
        sdsbench.load_runs(tmp_path / "nothing")
    assert sdsbench.load_runs(tmp_path).empty
    folder = write_run(tmp_path, make_record(), {"gsm8k": make_samples([True])})
    with pytest.raises(Unavailable, match="no answers"):
        samples_of(folder, "math")
    path = folder / "samples" / "gsm8k.trained.jsonl.zst"
    path.write_bytes(path.read_bytes()[:20])
    with pytest.raises(DamagedFile, match="cut short"):
        samples_of(folder, "gsm8k")
    path.write_bytes(b"no zstd")
    with pytest.raises(DamagedFile, match="not packed by Zstandard"):
        samples_of(folder, "gsm8k")


@pytest.mark.slow  # 19 s
def test_all_of_ten_thousand_runs_are_read(tmp_path: Path) -> None:
    """Prints the time, which the documents quote, and asserts only that no record is lost."""
    text = [make_record("lora", seed, {"gsm8k": 0.25}) for seed in range(50)]
    for copy in range(200):
        for record in text:
            renamed = record.model_copy(update={"run_id": f"{copy:03d}{record.run_id[:13]}"})
            folder = tmp_path / renamed.run_id
            folder.mkdir()
            renamed.checksum = renamed.seal()
            (folder / "record.json").write_text(renamed.model_dump_json())
    start = time.perf_counter()
    runs = sdsbench.load_runs(tmp_path)
    print(f"10,000 records in {time.perf_counter() - start:.1f} s")
    assert len(runs) == 10_000 and not runs.attrs["damaged"]


def test_line_of_a_file_cannot_name_another_run(tmp_path: Path) -> None:
    """A file's lines may hold the keys `run_id` and `stage`, and a configuration may hold nested values."""
    odd = {"nested": [1]}
    answers = [{**sample, "run_id": odd, "stage": "x"} for sample in make_samples([True])]
    for seed in (0, 1):
        config = {"method": {"targets": [odd, seed]}}
        record = make_record("lora", seed, {"gsm8k": 1.0}, config=config)
        run = write_run(tmp_path, record, {"gsm8k": answers}, [{"kind": "train", "step": 1, "loss": 2.0, "run_id": 5}])
        frame = sdsbench.load_samples(tmp_path)
        frame = frame[frame["run_id"] == run.name]
        assert [*frame["run_id"], *frame["stage"]] == [run.name, "trained"]
        assert run.name in list(sdsbench.load_steps(tmp_path)["run_id"])
    runs = load(tmp_path)[0]
    (line,) = [one for one in differences(runs, [averaged(run) for run in runs]) if "method.targets" in one]
    assert '{"nested":[1]}' in line
