"""Plans and records received from others: invalid names, jobs, links and pipes are refused."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from pydantic import ValidationError

from sdsbench.__main__ import main
from sdsbench.core.errors import ConfigError, DamagedFile, Refused
from sdsbench.core.run_folder import read_record, write_record
from sdsbench.sweeps import plan as plans
from sdsbench.sweeps import slurm
from sdsbench.sweeps.plan import Plan, TunedCell
from sdsbench.sweeps.pool import Allocation, Pool
from tests.sweeps.tools import TINY, put_record, tiny_plan


def test_invalid_names_of_plans_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = "x\ntouch /tmp/owned"
    for name in (line, "../x", "-x", "a%b", "a//b", ".x", "", "x" * 101):
        made = main(["plan", *TINY, f"--name={name}", f"--folder={tmp_path / 'made'}"])
        assert (made == 0) == (name == ""), name  # a plan without a name is named by a hash
    assert main(["plan", *TINY, "--folder", str(tmp_path / line)]) == 2
    assert "without control characters" in capsys.readouterr().err
    (tmp_path / "sweep").mkdir()
    (tmp_path / "sweep" / "s.yaml").write_text("name: ../../x\nblocks: [{axes: {seed: [0]}}]\n")
    with pytest.raises(ConfigError, match="name"):
        tiny_plan(tmp_path, "sweep=s", config_dirs=(str(tmp_path),))


@pytest.mark.parametrize("change", ["name", "run", "cell", "final"])
def test_received_manifest_with_invalid_names_is_refused(tmp_path: Path, change: str) -> None:
    plan = tiny_plan(tmp_path, "seed=0")
    (run,) = plan.manifest.runs.values()
    manifest = plan.manifest.model_copy(deep=True)
    (known,) = plan.manifest.runs
    cell = TunedCell(
        point={}, key="train.lr", grid=[1.0, 2.0], seeds=[1], tuning=[[known]] * 2, final={"0": [known] * 2}
    )
    if change == "name":
        manifest.name = "x\ntouch /tmp/owned"
    elif change == "run":
        manifest.runs["../../../elsewhere"] = run
    elif change == "cell":
        manifest.cells["../elsewhere"] = cell
    else:
        manifest.cells["0" * 12] = cell.model_copy(update={"final": {"0": ["../elsewhere"] * 2}})
    plans._write_manifest(plan.folder, manifest)
    with pytest.raises(DamagedFile, match="not a manifest"):
        plans.read(plan.folder)


def test_received_submission_with_an_invalid_job_is_refused(plan: Plan) -> None:
    folder = plan.folder / "submissions" / "001"
    folder.mkdir(parents=True)
    for job in ("--signal=9 1", "77_1", "x"):
        (folder / "submission.json").write_text(json.dumps({"job": job, "tasks": [["a"]]}))
        with pytest.raises(DamagedFile, match="not a submission"):
            slurm.submissions(plan)


def test_record_whose_id_is_not_its_folders_name_is_damaged(plan: Plan, tmp_path: Path) -> None:
    names = list(plan.manifest.runs)
    record = put_record(plan, tmp_path / "runs", names[0])
    write_record(tmp_path / "runs" / names[1], record)
    with pytest.raises(DamagedFile, match=f"its run id is {names[0]}, which is not the name of its folder"):
        read_record(tmp_path / "runs" / names[1] / "record.json")
    with pytest.raises(ValidationError, match="run_id"):
        write_record(tmp_path / "runs" / names[1], record.model_copy(update={"run_id": "../../escaped"}))


@pytest.mark.parametrize("kind", ["link", "FIFO"])
def test_received_plan_with_links_or_pipes_is_refused(
    kind: str, cluster: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plan = tiny_plan(tmp_path, "seed=0")
    (tmp_path / "target").mkdir()
    for name in ("logs", "submissions"):
        if kind == "link":
            (plan.folder / name).symlink_to(tmp_path / "target")
        else:
            os.mkfifo(plan.folder / name)
    with pytest.raises(Refused, match="logs"):
        Pool(plan, [Allocation("cpu-0", 1)], {}, [])
    assert main(["submit", str(plan.folder), "slurm=cpu"]) == 2
    assert "submissions: accepted: a" in capsys.readouterr().err
    assert list((tmp_path / "target").iterdir()) == [] and not (cluster / "sbatch.log").exists()


def test_other_folders_among_submissions_are_ignored(tmp_path: Path) -> None:
    plan = tiny_plan(tmp_path, "seed=0")
    for name in ("007", "9x", "9" * 200):
        (plan.folder / "submissions" / name).mkdir(parents=True)
    assert slurm.next_folder(plan).name == "008"


def test_planning_again_writes_damaged_configurations_anew(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["plan", *TINY, "--folder", str(tmp_path / "plan")]
    assert main([*words, "seed=0,1,2,3"]) == 0
    changed, lost, linked, whole = (
        tmp_path / "plan/runs" / f"{name}.json" for name in plans.read(tmp_path / "plan").manifest.runs
    )
    before = [path.read_bytes() for path in (changed, lost, linked, whole)]
    changed.write_text("{}")
    lost.unlink()
    linked.rename(tmp_path / "elsewhere.json")
    linked.symlink_to(tmp_path / "elsewhere.json")
    for path in (changed, lost, linked):
        with pytest.raises(DamagedFile, match="Plan again"):
            plans.read(tmp_path / "plan").configuration(path.stem, {})
    capsys.readouterr()
    assert main([*words, "seed=0,1,2,3"]) == 0
    assert "3 damaged configurations written anew" in " ".join(capsys.readouterr().err.split())
    assert [path.read_bytes() for path in (changed, lost, linked, whole)] == before and not linked.is_symlink()
    changed.write_text("{}")
    # train.head_lr has no effect on these runs, so that they keep their ids
    assert main([*words, "seed=0", "train.head_lr=0.5"]) == 0
    assert changed.read_bytes() not in (b"{}", before[0])
    assert plans.read(tmp_path / "plan").configuration(changed.stem, {}).train.head_lr == 0.5


@pytest.mark.parametrize("text", ["{}", None, "a link"])
def test_damaged_manifest_says_to_move_its_folder_away(
    text: str | None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["plan", *TINY, "seed=0", "--folder", str(tmp_path / "plan")]
    assert main(words) == 0
    manifest = tmp_path / "plan/manifest.json"
    content = manifest.read_text()
    if text == "a link":
        manifest.unlink()
        manifest.symlink_to(tmp_path / "content")
    manifest.write_text(content.replace('"description": ""', '"description": "x"') if text is None else text)
    assert main(words) == 3
    assert "Move the folder of the plan away and plan again" in " ".join(capsys.readouterr().err.split())
    (tmp_path / "plan").rename(tmp_path / "away")
    assert main(words) == 0
