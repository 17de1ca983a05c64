"""`sdsbench disk` and `clean`: only files that no run needs are deleted, and only with --delete."""

from __future__ import annotations

from pathlib import Path

import pytest

from sdsbench.__main__ import main
from sdsbench.sweeps import plan as plans
from tests.sweeps.tools import held_by_another_process, put_record, tiny_plan


def test_clean_deletes_exactly_what_it_listed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    plan = tiny_plan(tmp_path, "seed=0,1,2")
    runs, (done, busy, stopped) = tmp_path / "runs", plan.manifest.runs
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "precious").write_text("kept")
    for name in (done, busy, stopped):
        put_record(plan, runs, name, "preempted" if name == stopped else "done")
        (runs / name / "checkpoint-4").mkdir()
        (runs / name / "checkpoint-4" / "state.safetensors").write_bytes(b"x" * 5000)
        (runs / name / "record.replaced-0123abcd.json").write_text("{}")
        for part in ("adapter", "adapter.replaced-0123abcd"):
            (runs / name / part).mkdir()
        (runs / name / "metrics.jsonl").write_text("{}\n")
    (runs / done / "checkpoint-5").symlink_to(elsewhere)

    def files() -> set[str]:
        return {str(path.relative_to(runs)) for path in runs.rglob("*")}

    before = files()
    with held_by_another_process(runs / busy):
        assert main(["disk", str(plan.folder)]) == 0
        listed = capsys.readouterr().out
        # sizes of `done`, whose checkpoint, link and old record can go, and a count that includes other runs
        assert "5.1 kB" in listed and " 3 " in listed
        assert main(["clean", str(plan.folder)]) == 0
        assert "can go; nothing was deleted" in capsys.readouterr().out
        assert files() - {f"{busy}/lock"} == before
        assert main(["clean", str(plan.folder), "--delete"]) == 0
    remaining = {path for path in files() if not path.endswith("lock")}
    deletable = {f"{done}/checkpoint-4", f"{done}/checkpoint-4/state.safetensors", f"{done}/checkpoint-5"}
    for aside in ("record.replaced-0123abcd.json", "adapter.replaced-0123abcd"):
        deletable |= {f"{name}/{aside}" for name in (done, stopped)}
    assert before - remaining == deletable, "kept: checkpoints of stopped runs, and runs that a process holds"
    assert (elsewhere / "precious").read_text() == "kept"


def test_runs_of_no_plan_are_listed_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    plan = tiny_plan(tmp_path, "seed=0,1")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(plans, "PLANS", tmp_path)
    (tmp_path / "runs" / "0123456789abcdef").mkdir(parents=True)
    (tmp_path / "runs" / "0123456789abcdef" / "lock").touch()
    put_record(plan, tmp_path / "runs", next(iter(plan.manifest.runs)))
    capsys.readouterr()
    assert main(["disk", "--runs", "runs"]) == 0
    head, planned, others = capsys.readouterr().out.splitlines()
    assert (head.split(), planned.split()[:2]) == (["plan", "runs", "on", "disk", "can", "go"], ["plan", "1"])
    assert others.split()[:3] == ["(no", "plan)", "1"]
    assert main(["status"]) == 0
    assert capsys.readouterr().out == "plan: 1 done, 1 not started\n"


def test_clean_deletes_nothing_through_a_link(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run's folder is a link to a finished run elsewhere; this holds for runs of a plan and for others."""
    plan = tiny_plan(tmp_path, "seed=0")
    (name,) = plan.manifest.runs
    put_record(plan, tmp_path / "elsewhere", name)
    kept = tmp_path / "elsewhere" / name / "checkpoint-4" / "state.safetensors"
    kept.parent.mkdir()
    kept.write_text("precious")
    (tmp_path / "elsewhere" / name / "lock").touch()
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / name).symlink_to(tmp_path / "elsewhere" / name)
    monkeypatch.chdir(tmp_path)
    assert main(["clean", str(plan.folder), "--delete"]) == 0
    assert main(["clean", "--runs", str(tmp_path / "runs"), "--delete"]) == 0
    assert kept.read_text() == "precious"


def test_runs_of_a_plan_elsewhere_and_a_runs_own_folder_are_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    plan = tiny_plan(tmp_path, "seed=0,1")
    one, other = plan.manifest.runs
    (tmp_path / "elsewhere" / ("f" * 16)).mkdir(parents=True)
    (tmp_path / "elsewhere" / ("f" * 16) / "lock").touch()
    for name in (one, other):
        put_record(plan, tmp_path / "elsewhere", name)
        (tmp_path / "elsewhere" / name / "lock").touch()
        (tmp_path / "elsewhere" / name / "checkpoint-4").mkdir()
    monkeypatch.setattr(plans, "PLANS", tmp_path / "no plans")

    def runs(*words: str) -> int:
        capsys.readouterr()
        assert main(["disk", *words]) == 0
        return int(capsys.readouterr().out.splitlines()[-1].removeprefix("(no plan)").split()[-5])

    folder, run = str(tmp_path / "elsewhere"), str(tmp_path / "elsewhere" / one)
    assert runs(str(plan.folder)) == 0, "output_root of the plan is empty"
    assert [runs(str(plan.folder), "--runs", given) for given in (folder, run)] == [2, 1]
    assert [runs("--runs", given) for given in (folder, run)] == [3, 1]
    monkeypatch.chdir(run)
    assert runs(str(plan.folder), "--runs", ".") == 1
    assert main(["clean", str(plan.folder), "--runs", folder, "--delete"]) == 0
    assert not list(tmp_path.glob("elsewhere/*/checkpoint-4"))
