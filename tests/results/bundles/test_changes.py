"""Changed bundles: the hashes, or contradictions between a bundle's files, reveal a change, and its run is left out."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sdsbench.core.hashing import sha256_of
from sdsbench.core.record import Record
from sdsbench.results.bundles import consistency
from sdsbench.results.bundles.consistency import configuration_text
from sdsbench.results.bundles.opened import opened
from sdsbench.results.bundles.write import write
from sdsbench.results.frames import load_samples, load_steps, read_all
from sdsbench.runs.configuration.identity import recorded_id
from tests.results.bundles.tools import Files, contents, edit_json, edit_lines, pack, reseal
from tests.results.tables.fixtures import make_record, write_run


def _set_value(*keys: Any, to: Any) -> Callable[[Any], None]:
    def change(tree: Any) -> None:
        for key in keys[:-1]:
            tree = tree[key]
        tree[keys[-1]] = to

    return change


RECORD, LOG, ANSWERS = "/record.json", "/metrics.jsonl", "/gsm8k.trained.jsonl.zst"


def _remove_file(name: str) -> Callable[[Files], None]:
    return lambda files: files.pop(next(key for key in sorted(files) if key.endswith(name))) and None


def _write_file(name: str, content: bytes) -> Callable[[Files], None]:
    return lambda files: files.update({next(key for key in sorted(files) if key.endswith(name)): content})


def _correct_first_answer(answers: list[dict[str, Any]]) -> None:
    answers[0]["response"] = f"The answer is {answers[0]['target']}. #### {answers[0]['target']}"


CHANGES: list[tuple[str, Callable[[Files], None], str]] = [
    ("score", edit_json(RECORD, _set_value("scores", 0, "value", to=0.75)), "by its answers"),
    ("standard error", edit_json(RECORD, _set_value("scores", 0, "stderr", to=0.3)), "stderr"),
    ("questions", edit_json(RECORD, _set_value("scores", 0, "n", to=5)), "counts 5 questions"),
    ("undecided answers", edit_json(RECORD, _set_value("scores", 0, "undecided", to=1)), "undecided"),
    ("evaluation version", edit_json(RECORD, _set_value("scores", 0, "version", to=9)), "version"),
    ("scorer", edit_json(RECORD, _set_value("scores", 0, "scorer", to="lenient")), "lenient"),
    ("score in the log", edit_lines(LOG, lambda lines: lines[-1].update(value=0.75)), "not as in the log"),
    ("verdict", edit_lines(ANSWERS, lambda rows: rows[1]["scores"].update(flexible=1.0)), "other verdicts by flexible"),
    ("answer", edit_lines(ANSWERS, _correct_first_answer), "other verdicts"),
    ("gold answer", edit_lines(ANSWERS, lambda rows: rows[2].update(target="0")), ""),
    ("answer removed", edit_lines(ANSWERS, lambda rows: rows.pop()), "3 answers are stored"),
    ("answer repeated", edit_lines(ANSWERS, lambda rows: rows.append({**rows[0], "index": 4})), "5 answers are stored"),
    ("learning rate of the record", edit_json(RECORD, _set_value("lr", to=2e-3)), "lr is 0.002"),
    ("configured rate", edit_json(RECORD, _set_value("config", "train", "lr", to=2e-3)), "lr is 0.001"),
    ("learning rate of the log", edit_lines(LOG, lambda lines: lines[2].update(lr=0.5)), "highest rate"),
    ("learning rate of zero", edit_json(RECORD, _set_value("lr", to=0.0)), "ZeroDivisionError"),
    ("seed", edit_json(RECORD, _set_value("seed", to=7)), "seed is 7"),
    ("method", edit_json(RECORD, _set_value("method", to="lora")), "method is lora"),
    ("rank", edit_json(RECORD, _set_value("rank", to=4)), "rank is 4"),
    ("configured steps", edit_json(RECORD, _set_value("config", "train", "max_steps", to=400)), "that of run"),
    ("last loss", edit_json(RECORD, _set_value("losses", "last", to=0.1)), "last loss"),
    ("loss of a step", edit_lines(LOG, lambda lines: lines[0].update(loss=0.1)), "first loss"),
    ("step removed", edit_lines(LOG, lambda lines: lines.pop(1)), "steps in the log"),
    ("task", edit_json(RECORD, _set_value("task", to="math")), "task is math"),
    ("configuration's text", _write_file(".yaml", b"a: 1\n"), "config.yaml"),
    ("answer file removed", _remove_file(ANSWERS), ""),
    ("run id", edit_json(RECORD, _set_value("run_id", to="0" * 16)), "name of its folder"),
]  # fmt: skip
"""The changed value, the change, and the reason reported once all hashes fit (empty where no file contradicts it)."""


@pytest.mark.parametrize(("change", "reason_part"), [case[1:] for case in CHANGES], ids=[case[0] for case in CHANGES])
def test_changed_value_is_reported_and_its_run_left_out(
    change: Callable[[Files], None], reason_part: str, bundle: Path, tmp_path: Path
) -> None:
    """The hashes reveal the change; with hashes made to fit, a contradiction between the bundle's files reveals it."""
    files = contents(bundle)
    change(files)
    (name,) = [n for n in {**contents(bundle), **files} if contents(bundle).get(n) != files.get(n)]
    found, damaged = read_all(pack(tmp_path / "changed.zip", files))
    assert len(found) == 1
    (reason,) = damaged.values()
    assert name in reason and str(tmp_path / "changed.zip") in reason
    if not reason_part:
        return
    found, damaged = read_all(pack(tmp_path / "resealed.zip", reseal(files)))
    assert len(found) == 1, "the other run is still read"
    assert reason_part in next(iter(damaged.values()))


def test_records_made_before_a_key_existed_are_read(bundle: Path, tmp_path: Path) -> None:
    """A configuration key that a later version added does not count as a change of an older record."""
    files, older = contents(bundle), {}
    for path in sorted(name for name in files if name.endswith("/record.json")):
        record = Record.model_validate_json(files[path])
        del record.config["eval"]["limit"]
        named = {**record.config, "eval": {**record.config["eval"]}}
        for key in record.inert:
            section, _, name = key.rpartition(".")
            (named[section] if section else named).pop(name)
        was, record.run_id = record.run_id, sha256_of({k: v for k, v in named.items() if v != {}})[:16]
        files[path] = record.model_dump_json().encode()
        files[path.replace("record.json", "config.yaml")] = configuration_text(record).encode()
        older |= {name.replace(was, record.run_id): content for name, content in files.items() if was in name}
    rest = {name: content for name, content in files.items() if not name.startswith("runs/")}
    found, damaged = read_all(pack(tmp_path / "older.zip", reseal(rest | older)))
    assert len(found) == 2 and not damaged


def test_added_file_is_reported(bundle: Path, tmp_path: Path) -> None:
    files = contents(bundle)
    folder = next(name for name in files if name.startswith("runs/")).rpartition("/")[0]
    files[f"{folder}/samples/gsm8k.untrained.jsonl.zst"] = b""
    more = pack(tmp_path / "more.zip", files)
    _, damaged = read_all(more)
    assert "gsm8k.untrained.jsonl.zst is not in the manifest" in next(iter(damaged.values()))
    for frame in (load_steps(more), load_samples(more)):
        assert frame["run_id"].nunique() == 1 and frame.attrs["damaged"] == damaged, "nothing of its run is read"


def test_classifier_scores_are_recomputed_from_predictions_and_labels(tmp_path: Path) -> None:
    """A classifier's metric is computed from predictions and labels; stored verdicts do not matter."""
    record = make_record("lora", 0, {"glue/rte": 0.75}, task="glue/rte", scorer="accuracy", n=4, config={
        "task": {"name": "glue/rte", "train_set": "glue/rte"}, "protocol": {"name": "quick"},
        "method": {"name": "lora", "rank": 8, "alpha": 16.0},
    })  # fmt: skip
    answers = [
        {"index": i, "id": str(i), "target": 1.0, "response": float(i > 0), "scores": {"accuracy": float(i > 0)}}
        for i in range(4)
    ]
    record.run_id = recorded_id(record.config, record.inert)
    folder = write_run(tmp_path / "runs", record, {"glue/rte": answers})
    write(tmp_path / "good.zip", [folder])
    assert opened(tmp_path / "good.zip").problems == {}
    files = contents(tmp_path / "good.zip")
    edit_lines(".zst", lambda rows: rows[0].update(response=1.0))(files)
    (problem,) = opened(pack(tmp_path / "bad.zip", reseal(files))).problems.values()
    assert "accuracy of glue/rte (trained) is 75.00 in the record and 100.00 by its answers" in problem


def test_regrading_stops_after_three_answers_that_exceed_the_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each such answer takes a grader its whole time limit, and a bundle may hold a million of them."""
    graded: list[str] = []
    monkeypatch.setattr(consistency, "graders", lambda _: {"fixed": lambda gold, text: graded.append(text)})
    answers = [{"index": i, "response": str(i), "scores": {"fixed": 1.0}} for i in range(1000)]
    (reason,) = consistency._graded(None, "math (trained)", answers)  # type: ignore[arg-type]
    assert len(graded) == 3 and "does not come to within its limits" in reason
