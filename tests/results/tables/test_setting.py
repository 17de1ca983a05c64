"""The one definition of the same setting: what shares a column, a row, a cell; which runs a table is made of."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sdsbench.core.errors import Refused, Unavailable
from sdsbench.core.hashing import sha256_of
from sdsbench.core.record import Attempt, Memory, Seconds
from sdsbench.results import setting
from sdsbench.results.report.run_page import run_page
from sdsbench.results.tables.build import Built, build
from sdsbench.results.tables.definition import Column
from sdsbench.results.tables.grid import grid
from sdsbench.results.tables.loaded_runs import load
from sdsbench.results.tables.run_values import value
from tests.results.tables.fixtures import built, make_record, tuned, write_run


def write(root: Path, method: str, value: float, seeds: int = 3, **options: Any) -> None:
    for seed in range(seeds):
        write_run(root, make_record(method, seed, {"gsm8k": value + 0.001 * seed}, **options))


def train(**keys: Any) -> dict[str, Any]:
    return {"config": {"train": {"lr": 1e-3, "batch_size": 8, **keys}}}


DIFFERING = {
    "steps": (train(max_steps=10), train(max_steps=80)),
    "epochs": (train(epochs=1.0), train(epochs=3.0)),
    "batch": (train(batch_size=8), train(batch_size=32)),
    "optimizer": (train(optimizer="adamw"), train(optimizer="sgd")),
    "new tokens": ({"config": {"task": {"max_new_tokens": 16}}}, {"config": {"task": {"max_new_tokens": 512}}}),
    "task version": ({"version": 1}, {"version": 2}),
    "data": ({"fingerprint": "d0"}, {"fingerprint": "d1"}),
    "weights": ({"weights": "w0"}, {"weights": "w1"}),
    "questions": ({"n": 200}, {"n": 100}),
    "torch": ({"torch": "2.12.1"}, {"torch": "2.13.0"}),
    "device": ({"device": "cpu: a"}, {"device": "cuda: b"}),
    "dtype": ({"dtype": "float32"}, {"dtype": "bfloat16"}),
    "tuning": ({}, {"tuning": tuned(1e-3, [1e-4, 1e-3, 1e-2])}),
}


@pytest.mark.parametrize("what", DIFFERING)
def test_runs_of_two_settings_share_no_column(tmp_path: Path, what: str) -> None:
    """LoRA at 10 steps beside SDS-LoRA at 80 gave a bold winner; here each setting has its column, and nothing wins."""
    first, second = DIFFERING[what]
    write(tmp_path, "lora", 0.2, **first)
    write(tmp_path, "sds_lora", 0.8, **second)
    table = built("grid", tmp_path)
    assert len(table.table.columns) == 2
    for column in table.table.columns:
        shown = [cell for cell in table.cells.values() if cell.column == column.name and cell.ours]
        assert len(shown) == 1 and shown[0].mark == "" and shown[0].ours.n == 3  # type: ignore[union-attr]


@pytest.mark.parametrize("what", DIFFERING)
def test_a_fixed_table_says_which_key_and_values_keep_rows_apart(tmp_path: Path, what: str) -> None:
    """In a table with given columns two of three rows share a setting; the third stands apart, untested."""
    first, second = DIFFERING[what]
    write(tmp_path, "lora", 0.2, **second)
    write(tmp_path, "dora", 0.3, **second)
    write(tmp_path, "sds_lora", 0.8, **first)
    table = fixed(tmp_path, "lora", "dora", "sds_lora")
    cells = {row: table.cells[row, "all"] for row in ("lora", "dora", "sds_lora")}
    assert not cells["lora"].apart and not cells["dora"].apart and cells["sds_lora"].apart
    assert cells["sds_lora"].mark == "" and cells["dora"].mark != ""
    line = next(line for line in table.footer if line.startswith("Row sds_lora"))
    assert all(key in line and text in line for key, text in cells["sds_lora"].apart.items())


def fixed(root: Path, *methods: str) -> Built:
    """A table whose rows and column are given beforehand, as those of a paper."""
    runs, _ = load(root)
    some = grid(runs)
    rows = tuple(replace(some.rows[0], name=name, where={"method": name}) for name in methods)
    return build(replace(some, rows=rows, columns=(replace(some.columns[0], name="all", where={}),)), runs)


def test_a_tie_of_settings_compares_nothing(tmp_path: Path) -> None:
    write(tmp_path, "lora", 0.2, **train(max_steps=10))
    write(tmp_path, "sds_lora", 0.8, **train(max_steps=80))
    table = fixed(tmp_path, "lora", "sds_lora")
    assert table.cells["lora", "all"].apart == {"train.max_steps": "10"}
    assert table.cells["sds_lora", "all"].apart == {"train.max_steps": "80"}
    assert {cell.mark for cell in table.cells.values()} == {""}


def test_what_methods_may_differ_in(tmp_path: Path) -> None:
    """The method's own keys, its rank and alpha, the tuned value and the seed."""
    write(tmp_path, "lora", 0.5, tuning=tuned(1e-3, [1e-4, 1e-3, 1e-2]), **train(batch_size=32))
    method = {"name": "sds_lora", "rank": 16, "alpha": 4.0}
    config = {"method": method, "train": {"lr": 1e-2, "batch_size": 32}}
    write(tmp_path, "sds_lora", 0.6, rank=16, lr=1e-2, tuning=tuned(1e-2, [1e-4, 1e-3, 1e-2]), config=config)
    table = built("grid", tmp_path)
    assert len(table.table.columns) == 1
    assert not any(cell.apart or cell.problems for cell in table.cells.values())


def test_keys_without_effect_on_a_run_keep_nothing_apart(tmp_path: Path) -> None:
    """Two seeds whose records differ in the betas of an optimizer that has none; the record itself says it."""
    for seed, betas in ((0, [0.9, 0.999]), (1, [0.8, 0.9])):
        train = {"lr": 1e-3, "epochs": 1.0, "batch_size": 8, "optimizer": "sgd", "betas": betas}
        record = make_record("lora", seed, {"gsm8k": 0.5}, config={"train": train})
        write_run(tmp_path / "known", record.model_copy(update={"inert": ["train.betas"]}))
        write_run(tmp_path / "unknown", record)
    (cell,) = built("grid", tmp_path / "known").cells.values()
    assert cell.ours is not None and cell.ours.n == 2
    assert len(built("grid", tmp_path / "unknown").table.columns) == 2, "an older record does not say it"


def test_rates_set_by_hand_are_rows_and_not_compared(tmp_path: Path) -> None:
    """Nobody tuned: a method at one rate is not compared with another method at another rate."""
    for method, lr in (("lora", 1e-3), ("dora", 5e-3)):
        write(tmp_path, method, 0.2 if method == "lora" else 0.8, lr=lr)
    table = built("grid", tmp_path)
    assert len(table.table.columns) == 1
    assert {cell.row: dict(cell.apart) for cell in table.cells.values()} == {
        "lora_r8": {"train.lr": "0.001"},
        "dora_r8": {"train.lr": "0.005"},
    }


@pytest.mark.parametrize("status", ["failed", "oom"])
def test_an_unfinished_run_stands_in_the_row_of_its_own_setting(tmp_path: Path, status: str) -> None:
    """A diverged run at lr 1e9 is none of the runs at 1e-3; alpha 64's accidents are not alpha 16's."""
    write(tmp_path, "lora", 0.5)
    write_run(tmp_path, make_record("lora", 0, lr=1e9, status=status))
    table = built("grid", tmp_path)
    assert {name: cell.status for (name, _), cell in table.cells.items()} == {
        "lora_r8[train.lr=0.001]": "value",
        "lora_r8[train.lr=1000000000.0]": status,
    }
    assert {cell.note for cell in table.cells.values()} == {""}


def test_alpha_of_an_accident_is_its_own(tmp_path: Path) -> None:
    alpha = {alpha: {"method": {"name": "lora", "rank": 8, "alpha": alpha}} for alpha in (16.0, 64.0)}
    write(tmp_path, "lora", 0.5, config=alpha[16.0])
    write_run(tmp_path, make_record("lora", 0, status="oom", config=alpha[64.0]))
    statuses = {row: cell.status for (row, _), cell in built("grid", tmp_path).cells.items()}
    assert statuses == {"lora_r8[method.alpha=16.0]": "value", "lora_r8[method.alpha=64.0]": "oom"}


def test_an_unfinished_run_of_another_setting_has_a_column(tmp_path: Path) -> None:
    write(tmp_path, "lora", 0.5, **train(max_steps=10))
    write_run(tmp_path, make_record("lora", 0, status="oom", **train(max_steps=80)))
    cells = built("grid", tmp_path).cells
    found = {cell.column: cell.status for cell in cells.values() if cell.status != "missing"}
    assert found == {"micro/gsm8k/train.max_steps=10": "value", "micro/gsm8k/train.max_steps=80": "oom"}


def test_a_run_made_by_hand_is_no_tuning_run(tmp_path: Path) -> None:
    """It was tested like the others, and has a column of its own beside the tuned ones."""
    write(tmp_path, "lora", 0.5, tuning=tuned(1e-3, [1e-4, 1e-3, 1e-2]))
    by_hand = make_record("lora", 7, {"gsm8k": 0.9}, lr=2e-3)
    write_run(tmp_path, by_hand)
    table = built("grid", tmp_path)
    assert table.excluded == {}
    shown = [cell.runs[0].id for cell in table.cells.values() if len(cell.runs) == 1]
    assert shown == [by_hand.run_id]
    one_cell = fixed(tmp_path, "lora")
    assert one_cell.excluded == {by_hand.run_id: "not tuned, where other runs of its cell are"}


def test_differences_are_one_line_a_key() -> None:
    class Named:
        def __init__(self, name: str) -> None:
            self.id = name

    facts = [{"steps": 10, "same": 1}, {"steps": 80, "same": 1}, {"same": 1}]
    assert setting.differences([Named("a"), Named("b"), Named("c")], facts) == ["steps: 10 in a; 80 in b"]  # type: ignore[list-item]


def test_where_takes_keys_as_they_are_written(tmp_path: Path) -> None:
    for limit in (64, 200):
        write(tmp_path, "lora", 0.5, config={"eval": {"limit": limit, "untrained": False}})
    assert {run.flat["config.eval.limit"] for run in load(tmp_path, ["eval.limit=64"])[0]} == {64}
    assert len(load(tmp_path, ["train.lr=1e-3", "eval.untrained=false", "method=lora"])[0]) == 6
    with pytest.raises(Refused, match=r"no run has the key eval\.limt\. Did you mean 'eval\.limit'\?"):
        load(tmp_path, ["eval.limt=64"])
    with pytest.raises(Refused, match="no run is left; method is lora"):
        load(tmp_path, ["method=dora"])
    with pytest.raises(Refused, match=r"no run is left; eval\.limit is 200, 64"):
        load(tmp_path, ["eval.limit=65"])


def test_a_plan_selects_its_runs(tmp_path: Path) -> None:
    write(tmp_path / "runs", "lora", 0.5)
    write(tmp_path / "runs", "dora", 0.5)
    mine = [run.id for run in load(tmp_path / "runs", ["method=lora"])[0]]
    plan = tmp_path / "plan"
    write_plan(plan, mine)
    assert sorted(run.id for run in load(tmp_path / "runs", plan=str(plan))[0]) == sorted(mine)
    write_plan(plan, ["0" * 16])
    with pytest.raises(Refused, match="none of its 1 runs is among the 6"):
        load(tmp_path / "runs", plan=str(plan))
    with pytest.raises(Unavailable, match="no such folder with a manifest"):
        load(tmp_path / "runs", plan=str(tmp_path / "nowhere"))


def write_plan(folder: Path, runs: list[str]) -> None:
    from sdsbench.sweeps.plan import Manifest, PlannedRun

    planned = {name: PlannedRun(role="run", point={}, sha256="0") for name in runs}
    manifest = Manifest(name="p", description="", git_commit=None, placing={}, runs=planned, cells={})
    manifest = manifest.model_copy(update={"checksum": sha256_of({**manifest.model_dump(mode="json"), "checksum": ""})})
    folder.mkdir(exist_ok=True)
    (folder / "manifest.json").write_text(manifest.model_dump_json())


def cost(root: Path, measure: str) -> float | None:
    (run,), _ = load(root)
    return value(run, Column("c", "", {}, measure, format="number", better=""))


def test_costs_are_empty_where_they_are_not_the_runs_own(tmp_path: Path) -> None:
    """Resident memory is that of a process; time and memory of a group are nobody's."""
    cuda = Memory(peak_bytes=7, kind="cuda_allocated")
    for name, record, memory, seconds in (
        ("process", make_record("lora", 0, {"gsm8k": 0.5}), None, 20.0),
        ("device", make_record("lora", 0, {"gsm8k": 0.5}, memory=cuda), 7, 20.0),
        ("group", make_record("lora", 0, {"gsm8k": 0.5}, memory=cuda), None, None),
    ):
        if name == "group":
            record.placing["group_size"] = 2
        write_run(tmp_path / name, record)
        assert cost(tmp_path / name, "memory.peak_bytes") == memory, name
        assert cost(tmp_path / name, "seconds.train") == seconds, name


def test_a_time_stands_with_the_share_of_the_machine_that_it_had(tmp_path: Path) -> None:
    """Runs of two workers on two cores had times like any others: table and page of the run say what others held."""
    for seed, others in enumerate((None, 0.1, 1.0)):
        record = make_record("lora", seed, {"gsm8k": 0.5})
        record.attempts = [Attempt(started="2026-11-27T00:00:00+00:00", status="done", others=others)]
        write_run(tmp_path, record)
    runs, _ = load(tmp_path)
    time = Column("time", "Training, s", {}, "seconds.train", format="seconds", better="")
    said = "Times of 1 of 3 runs are those of a shared machine: other work held up to 1.0 cores on average."
    assert said in build(replace(grid(runs), columns=(*grid(runs).columns, time)), runs).footer
    assert not any("shared machine" in line for line in build(grid(runs), runs).footer), "no time is shown"
    facts = [dict(run_page(run)["facts"]).get("other work") for run in sorted(runs, key=lambda run: run.record.seed)]
    assert facts == [None, "0.1 cores on average", "1.0 cores on average"]


def test_times_of_different_machines_are_not_averaged(tmp_path: Path) -> None:
    for seed, device in enumerate(("cpu: one", "cpu: other")):
        seconds = Seconds(train=10.0 + seed)
        write_run(tmp_path, make_record("lora", seed, {"gsm8k": 0.5}, device=device, seconds=seconds))
    runs, _ = load(tmp_path)
    score = grid(runs)
    time = Column("time", "Training, s", {}, "seconds.train", format="seconds", better="")
    cells = build(replace(score, columns=(*score.columns, time)), runs).cells
    assert cells["lora_r8", "micro/gsm8k"].ours is not None  # scores do not depend on it
    assert cells["lora_r8", "time"].status == "unequal"
    assert cells["lora_r8", "time"].problems[0].startswith("device: cpu: one in")


def test_facts_are_written_for_a_reader() -> None:
    """Which data was asked is a set's name and the beginning of its hash, not a tuple of Python's."""
    hashes = ("a" * 64, "b" * 64)
    facts = [{"evaluated data": (("gsm8k", digest),)} for digest in hashes]
    assert setting.unlike(facts) == [{"evaluated data": f"gsm8k {digest[:12]}"} for digest in hashes]
    assert setting.text(("q_proj", "v_proj")) == "q_proj v_proj"
    assert setting.text((("math", "a" * 64), ("gsm8k", "b" * 64))) == f"math {'a' * 12}, gsm8k {'b' * 12}"
