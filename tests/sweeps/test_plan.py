"""A plan holds exactly the runs that the same overrides would start, and later changes of files do not affect it."""

from __future__ import annotations

import copy
import itertools
import json
import re
from pathlib import Path
from typing import Any

import pytest
from omegaconf import DictConfig, OmegaConf

from sdsbench.__main__ import main
from sdsbench.core.errors import ConfigError, DamagedFile
from sdsbench.core.hashing import sha256_of
from sdsbench.runs.configuration import identity
from sdsbench.runs.configuration.compose import compose_run
from sdsbench.runs.configuration.identity import run_id
from sdsbench.runs.data_source import resolve_source
from sdsbench.sweeps import overview
from sdsbench.sweeps import plan as plans
from sdsbench.sweeps.blocks import define
from sdsbench.sweeps.expand import Composer, product
from sdsbench.sweeps.freeze import freeze
from tests.sweeps.tools import TINY, tiny_plan

COMPOSED = [
    ["method=lora,sds_lora,full_ft,lora_sb", "seed=0,1"],
    ["model=micro,smollm2_135m", "method=lora,dora", "seed=3"],  # protocol.lr and max_steps depend on the model
    ["protocol.rank=4,8", "method=lora,pissa"],  # interpolated into method.rank
    ["method=lora", "method.alpha=8,16", "method.rank=2,4"],
    ["protocol.lr=1e-3,2e-3", "seeds.init=5,6", "seed=1"],  # train.lr follows protocol.lr, seeds.data follows seed
    ["method=sds_lora", "method.alpha=2r", "method.rank=4,8"],
    ["method.targets=[q_proj],[q_proj,v_proj]", "seed=range(0,3)"],
    ["protocol=lora_sb/glue", "task=glue/rte,glue/cola", "method=lora_sb,lora", "model=roberta_large"],
]


@pytest.mark.parametrize("words", COMPOSED, ids=lambda words: " ".join(words)[:50])
def test_points_are_composed_as_hydra_would(words: list[str]) -> None:
    (block,) = define(words).blocks
    composer = Composer({"threads": "1"})
    for point in product(block):
        fast = composer.configuration(point)
        composer.raise_problems()
        slow = compose_run(["threads=1", *(f"{key}={value}" for key, value in point.items())])
        assert fast == slow, point


def test_planned_run_ids_equal_those_of_the_runs(tmp_path: Path) -> None:
    plan = tiny_plan(tmp_path, "method=lora,dora", "seed=0,1")
    names = list(plan.manifest.runs)
    assert len(names) == 4
    for name, (method, seed) in zip(names, itertools.product(["lora", "dora"], [0, 1]), strict=True):
        config = compose_run([*TINY, f"method={method}", f"seed={seed}"])
        assert run_id(resolve_source(config)[0]) == name == run_id(plan.configuration(name, {"threads": 3}))


def test_source_auto_is_resolved_when_planning(tmp_path: Path) -> None:
    rows = [{"question": f"What is {i} and 1?", "answer": f"It is {i + 1}.\n#### {i + 1}"} for i in range(8)]
    for split in ("train", "test"):
        (tmp_path / "gsm8k").mkdir(exist_ok=True)
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        (tmp_path / f"gsm8k/{split}.jsonl").write_text(lines)
    sweep = define(["model=micro", "seed=0", f"data.root={tmp_path}"])
    manifest, texts = freeze(sweep)
    plan, _ = plans.write(tmp_path / "plan", manifest, texts)
    (name,) = manifest.runs
    assert plan.configuration(name, {}).data.source == "local"


def test_editing_conf_does_not_change_a_plan(tmp_path: Path) -> None:
    conf = tmp_path / "conf" / "sweep"
    conf.mkdir(parents=True)
    file = conf / "mine.yaml"
    file.write_text("name: mine\nblocks: [{fixed: [model=micro], axes: {train.lr: [1e-3, 2e-3]}}]\n")
    plan = tiny_plan(tmp_path, "sweep=mine", config_dirs=(str(tmp_path / "conf"),))
    before = {path: path.read_bytes() for path in plan.folder.rglob("*.json")}
    file.write_text("name: mine\nblocks: []\n")
    rates = [plan.configuration(name, {}).train.lr for name in plans.read(plan.folder).manifest.runs]
    assert rates == [1e-3, 2e-3]
    assert before == {path: path.read_bytes() for path in plan.folder.rglob("*.json")}


def test_planning_again_adds_new_runs_and_keeps_the_old(tmp_path: Path) -> None:
    first = tiny_plan(tmp_path, "seed=0,1")
    again = tiny_plan(tmp_path, "seed=1,2")
    assert list(again.manifest.runs)[:2] == list(first.manifest.runs)
    assert len(again.manifest.runs) == 3
    assert [again.configuration(name, {}).seed for name in again.manifest.runs] == [0, 1, 2]


def test_plan_that_cannot_be_written_leaves_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(plans, "_write_manifest", fail)
    with pytest.raises(Exception, match="disk refuses"):
        tiny_plan(tmp_path, "seed=0,1")
    assert list(tmp_path.iterdir()) == []


def test_file_and_command_line_give_the_same_runs(tmp_path: Path) -> None:
    (tmp_path / "sweep").mkdir()
    (tmp_path / "sweep" / "two.yaml").write_text(
        "name: two\nblocks:\n  - fixed: [model=micro, method=lora]\n    axes: {method.rank: [2, 4], seed: [0, 1]}\n"
        "  - fixed: [model=micro, method=sds_lora]\n    axes: {method.variant: [sds, flat_lora], seed: [0]}\n"
    )
    both, _ = freeze(define(["sweep=two", "threads=1"], [str(tmp_path)]), [str(tmp_path)])
    one, _ = freeze(define(["model=micro", "method=lora", "method.rank=2,4", "seed=0,1"]))
    other, _ = freeze(define(["model=micro", "method=sds_lora", "method.variant=sds,flat_lora", "seed=0"]))
    assert list(both.runs) == [*one.runs, *other.runs]
    assert both.placing["threads"] == 1


def test_glob_and_range_make_axes() -> None:
    (block,) = define(["method=glob(*lora_x*)", "seed=range(0,3)"]).blocks
    assert block == {"method": ["lora_xs"], "seed": ["0", "1", "2"]}


def test_tuned_cells_have_the_same_declared_budget_and_fresh_seeds(tmp_path: Path) -> None:
    (tmp_path / "sweep").mkdir()
    (tmp_path / "sweep" / "t.yaml").write_text(
        "name: t\nblocks: [{fixed: [model=micro], axes: {method: [lora, sds_lora], seed: [0, 1]}}]\n"
        "tune: {key: train.lr, grid: [5e-4, 1e-3, 2e-3], seeds: [100, 101]}\n"
    )
    plan = tiny_plan(tmp_path, "sweep=t", config_dirs=(str(tmp_path),))
    assert [run.role for run in plan.manifest.runs.values()].count("tuning") == 2 * 3 * 2
    assert [slot.seed for slot in plan.slots() if slot.cell] == ["0", "1"] * 2
    for cell in plan.manifest.cells.values():
        for rate, names in zip(cell.grid, cell.tuning, strict=True):
            configs = [plan.configuration(name, {}) for name in names]
            assert [(c.train.lr, c.seed, c.eval.split) for c in configs] == [
                (rate, 100, "validation"), (rate, 101, "validation")
            ]  # fmt: skip
        configs = [plan.configuration(name, {}) for name in cell.final["1"]]
        assert [(c.train.lr, c.seed, c.eval.split) for c in configs] == [(rate, 1, "test") for rate in cell.grid]


def test_one_message_holds_the_problems_of_all_runs() -> None:
    with pytest.raises(ConfigError) as caught:
        freeze(define(["model=micro", "method=lora,sds_lora", "method.rank=8,9999", "train.lr=-1", "seed=0,1"]))
    assert {problem.key for problem in caught.value.problems} == {"method.rank", "train.lr"}


def test_second_name_of_a_sweep_is_refused() -> None:
    with pytest.raises(ConfigError, match="sweep='study/decoder,quick': accepted: one name") as caught:
        define(["sweep=study/decoder,quick"])
    assert len(caught.value.problems) == 1


def test_message_counts_all_problems_where_it_lists_some() -> None:
    with pytest.raises(ConfigError) as caught:
        freeze(define(["model=micro", "method.rank=range(9001,9031)", "seed=0"]))
    assert len(caught.value.problems) == 30
    lines = str(caught.value).splitlines()
    assert "30 problems" in lines[0] and lines[20].startswith("  20. ") and len(lines) == 22
    assert lines[21] == "  ... and 10 more, listed once some of these are mended"
    assert str(copy.copy(caught.value)) == str(caught.value), "copied as it is for another process"


def test_a_task_without_its_own_file_does_not_hide_other_problems() -> None:
    with pytest.raises(ConfigError) as caught:
        freeze(define(["model=micro", "task=gsm8k,pairs", "method.rank=8,9999", "data.source=embedded", "seed=0"]))
    assert {problem.key for problem in caught.value.problems} == {"data.train", "method.rank"}


def test_changed_file_of_a_plan_is_detected(tmp_path: Path) -> None:
    plan = tiny_plan(tmp_path, "seed=0")
    (name,) = plan.manifest.runs
    file = plan.folder / "runs" / f"{name}.json"
    tree = json.loads(file.read_text())
    tree["train"]["lr"] = 1.0
    file.write_text(json.dumps(tree))
    with pytest.raises(DamagedFile, match="checksum"):
        plan.configuration(name, {})


def test_aggregate_tasks_become_their_members(tmp_path: Path) -> None:
    """This holds for task=glue and for a protocol's default task; the runs equal those of each member alone."""
    axes = ["model=minilm", "method=lora,sds_lora", "seed=0,1", "data.source=embedded"]
    manifest, _ = freeze(define(["task=glue", *axes]))
    assert len(manifest.runs) == 24
    alone, _ = freeze(define(["task=glue/rte,glue/mrpc,glue/cola,glue/stsb,glue/qnli,glue/sst2", *axes]))
    assert set(manifest.runs) == set(alone.runs)
    by_default, _ = freeze(define(["protocol=lora_sb/glue", "method=lora", "seed=0", "data.source=hub"]))
    assert [run.point["task"] for run in by_default.runs.values()][:2] == ["glue/cola", "glue/rte"]
    chosen, _ = freeze(define(["task=glue", "task.members=[glue/rte,glue/mrpc]", *axes]))
    assert len(chosen.runs) == 8 and set(chosen.runs) < set(manifest.runs)


def test_tuned_aggregate_tasks_have_one_cell_per_member(tmp_path: Path) -> None:
    (tmp_path / "sweep").mkdir()
    (tmp_path / "sweep" / "t.yaml").write_text(
        "name: t\nblocks: [{fixed: [model=minilm, task=glue], axes: {method: [lora], seed: [0, 1]}}]\n"
        "tune: {key: train.lr, grid: [5e-4, 1e-3], seeds: [100]}\n"
    )
    manifest, _ = freeze(define(["sweep=t"], [str(tmp_path)]), [str(tmp_path)])
    assert [cell.point["task"] for cell in manifest.cells.values()] == [
        "glue/cola", "glue/rte", "glue/mrpc", "glue/stsb", "glue/qnli", "glue/sst2",
    ]  # fmt: skip


def test_protocol_gives_its_seeds_where_no_seed_is_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    words = ["plan", "protocol=sds_lora/math", "method=lora", "data.source=hub", "--folder"]
    assert main([*words, str(tmp_path / "three")]) == 0
    out = capsys.readouterr().out
    assert ": 3 configurations added" in out and "since no seed was given: 1, 2, 3\n" in out
    assert main([*words, str(tmp_path / "one"), "seed=7"]) == 0
    out = capsys.readouterr().out
    assert ": 1 configuration added" in out and "no seed" not in out
    assert main([*words, str(tmp_path / "own"), "seeds.init=5,6"]) == 0
    assert ": 2 configurations added" in capsys.readouterr().out


def test_number_of_resolved_interpolations_does_not_grow_with_seeds_and_rates(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Parsing an interpolation takes about a millisecond, so those that no varying value affects are resolved once."""
    counts = []
    select = OmegaConf.select
    for number, (seeds, rates) in enumerate((("0,1", "1e-3,2e-3"), ("range(0,12)", "1e-3,2e-3,3e-3,4e-3"))):
        calls: list[str] = []

        def counted(tree: DictConfig, key: str, calls: list[str] = calls, **how: Any) -> Any:
            calls.append(key)
            return select(tree, key, **how)

        monkeypatch.setattr(OmegaConf, "select", counted)
        assert len(tiny_plan(tmp_path / str(number), f"seed={seeds}", f"train.lr={rates}").manifest.runs) in (4, 48)
        counts.append(len(calls))
    assert counts[0] == counts[1]


def test_plan_of_a_version_with_other_keys_is_renamed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The old plan can be neither run nor extended; its error message tells the user to plan again."""
    words = ["model=micro", "method=lora", "data.source=embedded", "seed=0,1"]
    old = plans.write(tmp_path / "plan", *freeze(define(words)))[0].manifest
    monkeypatch.setattr(identity, "_id", lambda tree: sha256_of(["other keys", tree])[:16])
    plan, new = plans.write(tmp_path / "plan", *freeze(define(words)))
    assert new == 2 and not set(plan.manifest.runs) & set(old.runs)
    for run in plan.manifest.runs:
        plan.configuration(run, {})
    assert plans.read(tmp_path / "plan.1").manifest.runs == old.runs
    assert f"it is kept as {tmp_path / 'plan.1'}" in capsys.readouterr().err


def test_run_of_a_changed_users_file_is_added_to_the_plan(tmp_path: Path) -> None:
    """The overrides are equal and the run id differs; the run planned first stays in the plan."""
    (tmp_path / "conf/method").mkdir(parents=True)
    file = tmp_path / "conf/method/mine.yaml"
    words = ["model=micro", "method=mine", "data.source=embedded", "seed=0"]
    for alpha in (8.0, 16.0):
        file.write_text(f"name: lora\ntargets: [all-linear]\nrank: 8\nalpha: {alpha}\ndropout: 0.0\n")
        folders = [str(tmp_path / "conf")]
        plan, new = plans.write(tmp_path / "plan", *freeze(define(words, folders), folders))
        assert new == 1
    assert len(plan.manifest.runs) == 2 and not (tmp_path / "plan.1").exists()


def test_runs_on_other_files_than_those_of_the_plan_are_refused(tmp_path: Path) -> None:
    """A plan has one placing: with that of the new runs the old ones would lose their data."""
    own = tmp_path / "own.jsonl"
    own.write_text("".join(json.dumps({"prompt": f"{i} + 1 =", "response": str(i + 1)}) + "\n" for i in range(40)))
    pairs = ["model=micro", "method=lora", "task=pairs", f"data.train={own}"]
    embedded = ["model=micro", "method=lora", "data.source=embedded"]
    for number, (first, second, given) in enumerate([(pairs, embedded, None), (embedded, pairs, str(own))]):
        folder = tmp_path / f"plan{number}"
        old = plans.write(folder, *freeze(define([*first, "seed=0"])))[0].manifest
        with pytest.raises(ConfigError, match=r"data\.train=.*as in the runs that the plan .* has.*--name") as caught:
            plans.write(folder, *freeze(define([*second, "seed=0"])))
        assert [problem.value for problem in caught.value.problems] == [given]
        assert plans.read(folder).manifest == old
        assert plans.write(folder, *freeze(define([*first, "seed=0,1"])))[1] == 1


INCONSISTENT_CELLS = {
    "a negative extension": {"extend": -5},
    "an extension beyond the grid": {"extend": 9},
    "no values": {"grid": [], "tuning": [], "final": {}},
    "fewer tuning runs than values": {"tuning": []},
    "fewer tuning runs than seeds": {"tuning": [[]] * 2},
    "fewer final runs than values": {"final": {"0": []}},
    "a run that is not in the plan": {"final": {"0": ["f" * 16] * 2}},
}


@pytest.mark.parametrize("fault", INCONSISTENT_CELLS)
def test_received_plan_with_an_inconsistent_cell_is_refused(
    fault: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The checksum is right, as somebody who knows the format could make it."""
    plan = tiny_plan(tmp_path, "seed=0")
    (known,) = plan.manifest.runs
    whole = {"point": {}, "key": "train.lr", "grid": [1.0, 2.0], "seeds": [1], "tuning": [[known]] * 2,
             "final": {"0": [known] * 2}}  # fmt: skip
    _rewrite_manifest(plan.folder, cells={"0" * 12: whole})
    assert main(["status", str(plan.folder)]) == 0
    _rewrite_manifest(plan.folder, cells={"0" * 12: {**whole, **INCONSISTENT_CELLS[fault]}})
    for verb in ("status", "sweep", "retry", "submit"):
        capsys.readouterr()
        assert main([verb, str(plan.folder)]) == 3
        assert "manifest.json: not a manifest" in capsys.readouterr().err


INVALID_PLACING = {
    "a list": ({"output_root": ["a"]}, "a text"),
    "a number": ({"output_root": 5}, "a text"),
    "a zero byte": ({"output_root": "a\0b"}, "without control characters"),
    "another key": ({"no.such": 1}, "one of the keys"),
    "null": ({"output_root": None}, "a text"),
}


@pytest.mark.parametrize("fault", INVALID_PLACING)
def test_received_plan_with_an_invalid_placing_value_is_refused(
    fault: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plan = tiny_plan(tmp_path, "seed=0")
    change, message = INVALID_PLACING[fault]
    _rewrite_manifest(plan.folder, placing=plan.manifest.placing | change)
    for verb in ("status", "sweep", "retry", "submit", "disk"):
        capsys.readouterr()
        assert main([verb, str(plan.folder)]) == 3
        error = capsys.readouterr().err
        assert f"manifest.json: placing: {next(iter(change))}=" in error and message in error


def _rewrite_manifest(folder: Path, **changes: object) -> None:
    """Change values of a manifest, and give it the checksum of the new values."""
    tree = json.loads((folder / "manifest.json").read_text()) | changes | {"checksum": ""}
    for cell in tree["cells"].values():
        cell.setdefault("extend", 0)
    (folder / "manifest.json").write_text(json.dumps(tree | {"checksum": sha256_of(tree)}))


MORE = ["train.max_length=64,128", "method.dropout=0,0.1", "train.weight_decay=0,0.1"]
WIDE = ["method.rank=2,4", "train.lr=1e-3,2e-3", "method.alpha=8,16", "seed=0,1"]


def plain_screen(text: str) -> list[str]:
    return re.sub(r"\x1b\[[\d;]*m", "", text).splitlines()


def test_plan_with_many_keys_lists_them_in_one_column_of_a_terminal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, terminal: None, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(overview, "print_costs", lambda *_: None)
    words = [*TINY, "method=lora", *WIDE, *MORE, "--all"]
    assert main(["plan", *words, "--name", "wide"]) == 0
    lines = plain_screen(capsys.readouterr().out)
    assert "plan results/plans/wide: 128 configurations added" in lines and max(map(len, lines)) <= 80
    text = " ".join(" ".join(lines).split())
    assert "run values that differ state message" in text and "…" not in text
    assert "method.rank=4" in text and text.count("not started") >= 128


def test_plan_with_many_keys_is_one_line_a_run_without_a_terminal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(overview, "print_costs", lambda *_: None)
    assert main(["plan", *TINY, "method=lora", *WIDE, "--name", "wide", "--all"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert sum(bool(re.match(r"[0-9a-f]{16} .* not started *$", line)) for line in lines) == 16


def test_adding_runs_to_a_plan_is_said_and_warned_of_where_they_are_of_another_task(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    outputs = []
    for words in (["seed=0"], ["seed=1"], ["seed=1"], ["task=math", "seed=0"], ["task=gsm8k", "seed=5"]):
        assert main(["plan", *TINY, "method=lora", *words, "--name", "p"]) == 0
        outputs.append(capsys.readouterr().out)
    assert "of the plan that is there" not in outputs[0] + outputs[2]
    assert "added to the 1 run of the plan that is there\n" in outputs[1]
    warning = "WARNING: added to the 2 runs of the plan that is there, which are of another kind: task math beside "
    assert warning in outputs[3]
    assert "WARNING" not in outputs[4], "gsm8k is the default"
