"""A sweep whose code has changed since some of its runs: they are shown as stale, kept, and run again with --force."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from sdsbench.__main__ import main
from sdsbench.core.file_hash import content_hash
from sdsbench.core.run_folder import read_record, write_record
from sdsbench.models.location import weights_of
from sdsbench.runs.origin import code_hashes
from sdsbench.sweeps.plan import Plan
from sdsbench.sweeps.states import States
from tests.results.tables.fixtures import make_record
from tests.sweeps.test_worker import end_statuses, work
from tests.sweeps.tools import put_record, tiny_plan

METHOD = """
from sdsbench.methods.base import register
from sdsbench.methods.lora import LoRA, LoRAConfig


class Config(LoRAConfig):
    name: str = "changing"


@register("changing", Config)
class Changing(LoRA):
    def scale(self) -> float:
        return self.config.alpha / self.config.rank**0.25
"""
YAML = "name: changing\ntargets: ${protocol.targets}\nrank: 4\nalpha: 8.0\ndropout: 0.0\n"


def test_a_stale_run_is_shown_and_kept_until_force_runs_it_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    source, conf = tmp_path / "changing_method.py", tmp_path / "conf"
    source.write_text(METHOD)
    (conf / "method").mkdir(parents=True)
    (conf / "method" / "changing.yaml").write_text(YAML)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))  # for the workers of `sdsbench sweep`
    words = ["plugins=[changing_method]", "method=lora,changing", "train.max_steps=5"]
    plan = tiny_plan(tmp_path, *words, config_dirs=(str(conf),))
    assert end_statuses(work(plan)[1]) == ["done", "done"]
    root, folder = tmp_path / "runs", str(plan.folder)
    before = {name: read_record(root / name / "record.json") for name in plan.manifest.runs}
    source.write_text(METHOD.replace("0.25", "0.5"))

    # The plugin is part of every run of the plan; the method is part of one of them alone.
    states = {slot.identity: slot for slot in States(plan, root).all()}
    assert [slot.state for slot in states.values()] == ["stale", "stale"]
    changed = {before[str(name)].method: slot.changed for name, slot in states.items()}
    assert changed == {
        "lora": ("code of plugin:changing_method",),
        "changing": ("code of method", "code of plugin:changing_method"),
    }
    capsys.readouterr()
    assert main(["status", folder]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "2 runs: 2 stale" in said
    assert "stale: made with other code of method, code of plugin:changing_method than today's." in said

    assert end_statuses(work(plan)[1]) == [], "no worker takes a stale run by itself"
    assert main(["sweep", folder, "--workers", "1"]) == 2
    assert "2 run(s) are stale" in capsys.readouterr().err
    assert {name: read_record(root / name / "record.json") for name in plan.manifest.runs} == before

    assert main(["sweep", folder, "--workers", "1", "--force"]) == 0
    assert States(plan, root).counts() == {"done": 2}
    for name, record in before.items():
        (aside,) = (root / name).glob("record.replaced-*.json")
        assert read_record(aside) == record
        now = read_record(root / name / "record.json")
        assert (now.losses != record.losses) == (record.method == "changing"), "only the method with another scale"


def put_origin(plan: Plan, root: Path, identity: str) -> None:
    """A finished run's record, whose code, base weights and start are those of today."""
    config = plan.configuration(identity, {})
    record, provenance = put_record(plan, root, identity), make_record().provenance
    assert provenance is not None
    weights = provenance.weights.model_copy(update={"fingerprint": weights_of(config.model).fingerprint})
    start = config.start_from and content_hash(root / config.start_from / "adapter" / "adapter.safetensors")
    today = {"code": code_hashes(config), "weights": weights, "start": start}
    write_record(root / identity, record.model_copy(update={"provenance": provenance.model_copy(update=today)}))


def put_tensors(root: Path, identity: str, content: bytes) -> None:
    (root / identity / "adapter").mkdir(exist_ok=True)
    (root / identity / "adapter" / "adapter.safetensors").write_bytes(content)


def test_a_run_is_stale_where_the_run_that_it_started_from_has_other_tensors(tmp_path: Path) -> None:
    """Two starts, and two runs of one start, of which one was made before and one after it was trained again."""
    root = tmp_path / "runs"
    starts = tiny_plan(tmp_path / "first", "seed=0,1", f"output_root={root}")
    for number, identity in enumerate(starts.manifest.runs):
        put_record(starts, root, identity)
        put_tensors(root, identity, bytes([number]) * 9)
    one, other = starts.manifest.runs
    plan = tiny_plan(tmp_path, f"start_from='{one}','{other}'", "seed=0,1")
    by_start = {
        (run.point["start_from"].strip("'"), run.point["seed"]): name for name, run in plan.manifest.runs.items()
    }
    for which, identity in by_start.items():
        if which != (other, "1"):
            put_origin(plan, root, identity)
    assert States(plan, root).counts() == {"done": 3, "not started": 1}
    put_tensors(root, other, b"trained again")
    put_origin(plan, root, by_start[other, "1"])

    def states(folder: Path) -> dict[str | None, str]:
        return {slot.identity: slot.state for slot in States(plan, folder).all()}

    wanted = {name: "stale" if which == (other, "0") else "done" for which, name in by_start.items()}
    assert states(root) == wanted
    moved = tmp_path / "moved"
    shutil.move(root, moved)
    assert states(moved) == wanted, "the runs started from are those in the same folder, as output_root names it"
