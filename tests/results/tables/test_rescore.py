"""Stored answers are graded again by another scorer."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from sdsbench.core.errors import ConfigError, Unavailable
from sdsbench.results.tables.loaded_runs import load
from sdsbench.results.tables.rescore import rescored
from tests.results.tables.fixtures import built, make_record, make_samples, write_run


def test_stored_answers_are_rescored_by_another_scorer(tmp_path: Path) -> None:
    task = {"name": "gsm8k", "train_set": "gsm8k"}
    write_run(
        tmp_path,
        make_record("lora", 0, {"gsm8k": 0.75}, config={"task": task}),
        {"gsm8k": make_samples([True, True, False, True])},
    )
    runs, _ = load(tmp_path)
    again = rescored(runs, "gsm8k=paper")
    score = next(s for s in again[0].record.scores if s.headline)
    assert (score.scorer, score.value, score.n) == ("paper", 0.75, 4)
    strict = rescored(runs, "gsm8k=strict")  # the answers hold no "####"
    assert next(s for s in strict[0].record.scores if s.headline).value == 0.0
    own = rescored(runs, "gsm8k=tests.results.tables.test_rescore:longer_than_target")
    assert next(s for s in own[0].record.scores if s.headline).value == 1.0
    for wrong in ("gsm8k=nonsense", "gsm8k", "gsm8k=no_module:f"):
        with pytest.raises(ConfigError, match="--scorer"):
            rescored(runs, wrong)
    shutil.rmtree(runs[0].folder / "samples")
    with pytest.raises(Unavailable, match="no answers"):
        rescored(runs, "gsm8k=strict")


def test_undecided_answers_are_counted_noted_and_regraded(tmp_path: Path) -> None:
    task = {"name": "math", "train_set": "hendrycks_math"}
    samples = [
        {
            "index": i,
            "id": str(i),
            "prompt": "?",
            "target": "2\\sqrt{3}",
            "response": text,
            "scores": {"fixed": known},
        }
        for i, (text, known) in enumerate([("The answer is: \\sqrt{12}", None), ("The answer is: 2", 0.0)])
    ]
    record = make_record("lora", 0, {"math": 0.0}, task="math", config={"task": task})
    score = record.scores[0].model_copy(update={"scorer": "fixed", "n": 2, "undecided": 1})
    write_run(tmp_path, record.model_copy(update={"scores": [score]}), {"math": samples})
    runs, damaged = load(tmp_path)
    assert not damaged and runs[0].record.scores[0].note == "1 undecided"
    assert any("math by fixed: 1 undecided" in line for line in built("grid", tmp_path).footer)
    again = rescored(runs, "math=fixed")[0].record.scores[0]
    assert (again.value, again.undecided, again.note, again.headline) == (0.5, 0, "", True)


def test_prompts_that_lost_their_beginning_are_no_undecided_answers(tmp_path: Path) -> None:
    record = make_record("lora", 0, {"gsm8k": 0.5})
    write_run(tmp_path, record.model_copy(update={"scores": [record.scores[0].model_copy(update={"prompts_cut": 3})]}))
    footer = built("grid", tmp_path).footer
    assert not any("Undecided" in line or "--scorer" in line for line in footer)
    (line,) = [line for line in footer if line.startswith("Prompts that lost their beginning")]
    assert line.endswith(f": {record.run_id} gsm8k: 3 of 200.")


def longer_than_target(target: str, response: str) -> bool:
    """A scorer that the rescoring test names by its import path."""
    return len(response) > len(target)
