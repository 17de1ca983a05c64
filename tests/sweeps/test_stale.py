"""A sweep whose code has changed since some of its runs: they are shown as stale, kept, and run again with --force."""

from __future__ import annotations

from pathlib import Path

import pytest

from sdsbench.__main__ import main
from sdsbench.core.run_folder import read_record
from sdsbench.sweeps.states import States
from tests.sweeps.test_worker import end_statuses, work
from tests.sweeps.tools import tiny_plan

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
