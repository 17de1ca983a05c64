"""Training a bundle's runs again from another folder: the answer for each run, and the command's exit code."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from sdsbench.__main__ import main
from sdsbench.core import samples
from sdsbench.core.errors import Refused
from sdsbench.core.record import Record
from sdsbench.core.run_folder import read_record, write_record
from sdsbench.results.bundles.opened import opened
from sdsbench.results.frames import Found, read_all
from sdsbench.results.reproduction import retrain as retraining
from sdsbench.results.reproduction.differences import ReproducedRun, compared
from sdsbench.results.reproduction.retrain import LocalSettings, chosen, configuration
from sdsbench.runs.configuration.identity import recorded_id
from tests.results.bundles.tools import contents, edit_json, pack, reseal
from tests.results.tables.fixtures import make_record, write_run


def test_reproduction_from_another_folder_is_bitwise_the_same_and_resumes(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copy(bundle, tmp_path / "theirs.zip")
    assert main(["reproduce", "theirs.zip", "--sample", "1"]) == 0
    text = capsys.readouterr().out
    assert "1 run: 1 bitwise the same" in text
    folder = tmp_path / "results/reproductions/theirs"
    (plain,) = json.loads((folder / "reproduction.json").read_text())
    assert (plain["answer"], plain["largest_loss_difference"], plain["made_otherwise"]) == ("bitwise the same", 0.0, [])
    found, damaged = read_all(folder / "theirs-reproduced.zip")
    assert [one.record.run_id for one in found] == [plain["run"]] and not damaged
    page = (folder / "index.html").read_text()
    assert "bitwise the same" in page and plain["run"] in page
    assert main(["reproduce", "theirs.zip", "--run", plain["run"][:6]]) == 0
    assert f"found finished run {plain['run']}" in capsys.readouterr().out
    assert main(["table", "grid", "--runs", "theirs.zip", "--runs", str(folder / "runs")]) == 0
    table = capsys.readouterr().out
    assert "Runs: 2 finished" in table and "1 of these runs, with the same numbers" in table


@pytest.fixture
def pair(bundle: Path, bundled_runs: Path, tmp_path: Path) -> tuple[Found, Found, list[Record]]:
    """A run of the bundle, a copy of it that a test may change, and the bundle's finished runs."""
    found, _ = read_all(bundle)
    theirs = found[0]
    folder = tmp_path / "runs" / theirs.record.run_id
    shutil.copytree(bundled_runs / theirs.record.run_id, folder)
    return theirs, Found(folder, read_record(folder / "record.json"), "here"), [one.record for one in found]


def _rewritten(ours: Found, **changes: Any) -> Found:
    record = write_record(ours.folder, ours.record.model_copy(update=changes))
    return Found(ours.folder, record, "here")


def _edit_answers(ours: Found, change: Any) -> None:
    path = samples.path_of(ours.folder, "gsm8k", "trained")
    rows = samples.read(path)
    change(rows)
    samples.write(path, rows)


def _shift_losses(ours: Found, by: float) -> None:
    path = ours.folder / "metrics.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    for line in lines:
        if line["kind"] == "train":
            line["loss"] += by
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


def _with_score(ours: Found, value: float) -> Found:
    scores = [score.model_copy(update={"value": value}) for score in ours.record.scores]
    return _rewritten(ours, scores=scores)


def test_copy_is_bitwise_the_same(pair: tuple[Found, Found, list[Record]]) -> None:
    assert compared(*pair, None).answer == "bitwise the same"


def test_other_tensors_are_not_bitwise_the_same(pair: tuple[Found, Found, list[Record]]) -> None:
    theirs, ours, siblings = pair
    (ours.folder / "adapter").mkdir(exist_ok=True)
    (ours.folder / "adapter" / "adapter.safetensors").write_bytes(b"other")
    assert compared(theirs, ours, siblings, "0" * 64).answer == "the same answers"


def test_other_losses_and_wording_with_equal_verdicts_are_the_same_answers(
    pair: tuple[Found, Found, list[Record]],
) -> None:
    theirs, ours, siblings = pair
    _shift_losses(ours, 2e-4)
    _edit_answers(ours, lambda rows: rows[0].update(response="put otherwise"))
    provenance = ours.record.provenance
    assert provenance is not None
    packages = {**provenance.packages, "torch": "2.14.0"}
    result = compared(
        theirs,
        _rewritten(ours, provenance=provenance.model_copy(update={"threads": 2, "packages": packages})),
        siblings,
        None,
    )
    assert (result.answer, result.exit_code) == ("the same answers", 10)
    assert result.loss == pytest.approx(2e-4) and (result.questions, result.other_words) == (4, 1)
    assert "threads: 1, here 2" in result.made_otherwise
    assert any(line.startswith("torch: 2.13.0") and line.endswith("here 2.14.0") for line in result.made_otherwise)


def test_score_differences_are_compared_with_the_spread_of_seeds(pair: tuple[Found, Found, list[Record]]) -> None:
    """Seeds that score 0 and 25 allow a difference of 12.7 x 17.7 x 1.41 points, hence 25; equal seeds allow none."""
    theirs, ours, siblings = pair
    spread = [record.model_copy(deep=True) for record in siblings]
    for score in spread[1].scores:
        score.value = 0.25
    _edit_answers(ours, lambda rows: rows[0]["scores"].update(flexible=1.0))

    def compared_at(value: float, known: list[Record]) -> ReproducedRun:
        return compared(theirs, _with_score(ours, value), known, None)

    within = compared_at(0.25, spread)
    assert (within.answer, within.exit_code) == ("within the spread", 11)
    assert within.differences[0].half_width == pytest.approx(12.7062 * 0.176777 * 2**0.5, rel=1e-4)
    assert [question.index for question in within.other_verdicts] == [0]
    apart = compared_at(0.25, siblings)
    assert (apart.answer, apart.exit_code) == ("different", 12)
    alone = compared_at(0.25, siblings[:1])
    assert alone.answer == "different" and "the spread is not known" in str(alone.differences[0])


def test_scores_along_the_update_are_compared_share_by_share(tmp_path: Path) -> None:
    """The reproduction's score with half of the update is not held against the original's with a tenth of it."""
    sides = []
    for place, half in (("theirs", 0.6), ("ours", 0.2)):
        record = make_record("lora", 0, {"gsm8k": 0.5})
        record.scores += [
            record.scores[0].model_copy(update={"stage": "along", "along": share, "value": value})
            for share, value in ((0.1, 0.3), (0.5, half))
        ]
        folder = write_run(tmp_path / place, record, steps=[])
        sides.append(Found(folder, read_record(folder / "record.json"), place))
    found = compared(*sides, [sides[0].record], None)
    assert [(d.title, d.theirs, d.ours, d.within) for d in found.differences] == [
        ("gsm8k (flexible)", 0.5, 0.5, True),
        ("gsm8k (flexible, along 0.1)", 0.3, 0.3, True),
        ("gsm8k (flexible, along 0.5)", 0.6, 0.2, False),
    ]


def test_run_that_cannot_be_trained_stops_no_other(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One run's model is missing; the other run is trained, and the command exits with the code of the error."""
    files = contents(bundle)
    name = min(key for key in files if key.endswith("record.json"))
    tree = json.loads(files[name])
    record = Record.model_validate(tree)
    lost = record.model_copy(update={"run_id": "f" * 16, "seed": 5}, deep=True)
    lost.config["model"] |= {"source": "folder", "location": None}
    lost.config["seed"] = 5
    for score in lost.scores:
        score.evaluation = "unknown"
    lost.losses = None
    folder = f"runs/{lost.run_id}"
    files[f"{folder}/record.json"] = json.dumps(lost.model_dump(mode="json")).encode()
    from sdsbench.results.bundles.consistency import configuration_text

    files[f"{folder}/config.yaml"] = configuration_text(lost).encode()
    other = tmp_path / "other.zip"
    pack(other, reseal(files))
    ids = [word for identity in ("f" * 16, record.run_id) for word in ("--run", identity)]
    assert main(["reproduce", str(other), *ids, "-o", str(tmp_path / "out")]) == 2
    text = capsys.readouterr().out
    assert "2 runs: 1 not reproduced, 1 bitwise the same" in text and "model.location" in text


def test_error_of_a_run_decides_the_exit_code_beside_other_answers(
    bundle: Path, pair: tuple[Found, Found, list[Record]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    theirs, ours, siblings = pair
    _shift_losses(ours, 2e-4)
    same = compared(theirs, ours, siblings, None)
    lost = ReproducedRun("f" * 16, "not reproduced", theirs, reason="its model is missing", exit_code=3)
    for results, code in (([same], 10), ([same, lost], 3)):
        monkeypatch.setattr(retraining, "retrain", lambda *_, found=results: found)
        assert main(["reproduce", str(bundle), "-o", str(tmp_path)]) == code


def test_plugins_of_a_bundle_are_imported_only_on_request(tmp_path: Path) -> None:
    record = make_record("lora", 0, {"gsm8k": 0.5})
    assert record.provenance is not None
    record.provenance.code["plugin:somebodys_code"] = "0" * 64
    record.config["plugins"] = ["somebodys_code"]
    with pytest.raises(Refused, match="--plugin somebodys_code"):
        configuration(record, LocalSettings(tmp_path, {}))


def test_local_settings_replace_the_placing_keys_of_a_bundle(bundle: Path, tmp_path: Path) -> None:
    files = contents(bundle)
    edit_json(
        "record.json",
        lambda tree: tree["config"].update(
            tracker={"name": "wandb", "mode": "online"},
            output_root="/elsewhere",
            force=True,
            plugins=["antigravity"],
        ),
    )(files)
    record = Record.model_validate_json(files[min(key for key in files if key.endswith("record.json"))])
    config = configuration(record, LocalSettings(tmp_path / "here", {"threads": 2}))
    assert (config.tracker.name, config.output_root, config.force) == ("none", str(tmp_path / "here"), False)
    assert (config.plugins, config.threads) == ([], 2)


def test_sample_covers_the_methods_and_depends_only_on_the_bundle(tmp_path: Path) -> None:
    for method in ("lora", "dora", "pissa"):
        for seed in range(4):
            config = {
                "task": {"name": "gsm8k", "train_set": "gsm8k"},
                "protocol": {"name": "quick"},
                "method": {"name": method, "rank": 8, "alpha": 16.0},
            }
            record = make_record(method, seed, {"gsm8k": 0.5}, config=config)
            record.run_id = recorded_id(record.config, record.inert)
            write_run(tmp_path / "runs", record)
    from sdsbench.results.bundles.write import write

    write(tmp_path / "many.zip", [tmp_path / "runs"])
    drawn = chosen(opened(tmp_path / "many.zip"), 3, [])
    assert {one.record.method for one in drawn} == {"lora", "dora", "pissa"}
    shutil.copy(tmp_path / "many.zip", tmp_path / "copy.zip")
    again = chosen(opened(tmp_path / "copy.zip"), 3, [])
    assert [one.record.run_id for one in again] == [one.record.run_id for one in drawn]


@pytest.mark.slow  # 2 s
def test_other_thread_count_gives_the_same_answers(bundle: Path, tmp_path: Path) -> None:
    """Another order of the sums in a matrix product changes the last digits of losses, but no verdict."""
    code = main(["reproduce", str(bundle), "threads=2", "-o", str(tmp_path)])
    results = json.loads((tmp_path / "reproduction.json").read_text())
    assert code in (0, 10)
    assert all("threads: 1, here 2" in result["made_otherwise"] for result in results)
