"""Damaged plans, frozen configurations and submissions, and wrong settings for SLURM."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from sdsbench.sweeps import plan as plans
from tests.bad_input.damage import DAMAGE, assert_refused, file_contents, flip_a_bit, overwrite, truncate
from tests.sweeps.tools import tiny_plan


@pytest.mark.parametrize("damage", DAMAGE, ids=lambda damage: damage.__name__)
def test_damaged_manifest_is_refused_and_left_as_it_is(
    damage: Callable[[Path], None], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plan = tiny_plan(tmp_path, "seed=0,1")
    damage(plan.folder / "manifest.json")
    before = file_contents(plan.folder)
    assert_refused(capsys, ["status", str(plan.folder)], 3, "manifest.json")
    assert_refused(capsys, ["sweep", str(plan.folder)], 3, "manifest.json")
    assert file_contents(plan.folder) == before
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    "damage", [flip_a_bit, truncate, overwrite(b""), Path.unlink], ids=lambda damage: damage.__name__
)
def test_damaged_configuration_of_one_run_leaves_the_other_runs_readable(
    damage: Callable[[Path], None], tmp_path: Path
) -> None:
    """The error names the run; its exit code 3 lets a worker continue with the other runs."""
    plan = tiny_plan(tmp_path, "seed=0,1")
    names = list(plan.manifest.runs)
    damage(plan.folder / "runs" / f"{names[0]}.json")
    with pytest.raises(Exception, match=names[0]) as caught:
        plan.configuration(names[0], {})
    assert getattr(caught.value, "exit_code", None) == 3
    assert plan.configuration(names[1], {}).seed == 1


SLURM_OVERRIDES = [
    ("slurm=gpus", "Did you mean 'gpu'?"),
    ("slurm.time=soon", "90 (minutes), 4:00, 100:00:00, 2-0"),
    ("slurm.tiem=01:00:00", "Did you mean 'slurm.time'?"),
    ("slurm.gpus=-1", "a whole number from 0"),
    ("slurm.memory=lots", "64G"),
    ("slurm.partition='a; rm -rf /'", "without spaces"),
    ("slurm.runs_per_task=0", "a whole number from 1"),
    ("slurm.extra=[shutdown]", "sbatch"),
    ("seed=3", "frozen"),
]


@pytest.mark.parametrize(("word", "expected"), SLURM_OVERRIDES, ids=[word for word, _ in SLURM_OVERRIDES])
def test_wrong_slurm_setting_is_refused_before_submission(
    word: str, expected: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plan = tiny_plan(tmp_path, "seed=0,1")
    assert_refused(capsys, ["submit", str(plan.folder), word], 2, expected)
    assert not (plan.folder / "submissions").exists()


@pytest.mark.parametrize(
    "text", ["cpus: [", "cpus: " + "9" * 5000, "- gpu", "cpus: 2026-99-99"], ids=lambda text: text[:12]
)
def test_unreadable_slurm_file_is_refused(text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plan = tiny_plan(tmp_path, "seed=0")
    (tmp_path / "slurm").mkdir()
    (tmp_path / "slurm" / "theirs.yaml").write_text(text)
    words = ["submit", str(plan.folder), "slurm=theirs", "--dry-run", "--config-dir", str(tmp_path)]
    assert_refused(capsys, words, 2, "slurm")


WRONG_PLACING = [
    ("output_root", 7), ("output_root", None), ("output_root", ["a"]), ("output_root", "a\nb"), ("threads", "x"),
    ("device", [1]), ("plugins", "os"), ("data.root", "x\x1by"),
]  # fmt: skip


@pytest.mark.parametrize(("key", "value"), WRONG_PLACING, ids=str)
def test_manifest_with_wrong_placing_values_is_refused(
    key: str, value: object, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Although its checksum matches: the author of a plan can put any value into it."""
    plan = tiny_plan(tmp_path, "seed=0")
    manifest = plan.manifest.model_copy(update={"placing": plan.manifest.placing | {key: value}})
    plans._write_manifest(plan.folder, manifest)
    before = file_contents(tmp_path)
    for verb, *more in (["status"], ["sweep"], ["disk"], ["bundle", "-o", str(tmp_path / "x.zip")]):
        assert_refused(capsys, [verb, str(plan.folder), *more], 3, f"{key}=", "accepted")
    assert file_contents(tmp_path) == before


@pytest.mark.parametrize("content", ["", "{", "[]", '{"job": 1}', '{"job": 1, "tasks": 3}'])
def test_damaged_submission_is_refused(content: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plan = tiny_plan(tmp_path, "seed=0")
    path = plan.folder / "submissions" / "001" / "submission.json"
    path.parent.mkdir(parents=True)
    path.write_text(content)
    assert_refused(capsys, ["status", str(plan.folder)], 3, "submission.json")
