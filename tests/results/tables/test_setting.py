"""When two runs have the same setting: which runs share a column, a row or a cell, and which runs a table uses."""

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


def write_seeds(root: Path, method: str, value: float, seeds: int = 3, **options: Any) -> None:
    for seed in range(seeds):
        write_run(root, make_record(method, seed, {"gsm8k": value + 0.001 * seed}, **options))


def train_config(**keys: Any) -> dict[str, Any]:
    return {"config": {"train": {"lr": 1e-3, "batch_size": 8, **keys}}}


DIFFERING = {
    "steps": (train_config(max_steps=10), train_config(max_steps=80)),
    "epochs": (train_config(epochs=1.0), train_config(epochs=3.0)),
    "batch": (train_config(batch_size=8), train_config(batch_size=32)),
    "optimizer": (train_config(optimizer="adamw"), train_config(optimizer="sgd")),
    "generated tokens": ({"config": {"task": {"max_new_tokens": 16}}}, {"config": {"task": {"max_new_tokens": 512}}}),
    "task version": ({"version": 1}, {"version": 2}),
    "data": ({"fingerprint": "d0"}, {"fingerprint": "d1"}),
    "weights": ({"weights": "w0"}, {"weights": "w1"}),
    "questions": ({"n": 200}, {"n": 100}),
    "torch": ({"torch": "2.12.1"}, {"torch": "2.13.0"}),
    "device": ({"device": "cpu: a"}, {"device": "cuda: b"}),
    "dtype": ({"dtype": "float32"}, {"dtype": "bfloat16"}),
    # A record that does not say was answered by transformers.
    "engine": ({"config": {"eval": {"engine": "vllm"}}}, {}),
    "image size": ({}, {"config": {"model": {"name": "micro", "image_size": 112}}}),
    "tuning": ({}, {"tuning": tuned(1e-3, [1e-4, 1e-3, 1e-2])}),
}


@pytest.mark.parametrize("difference", DIFFERING)
def test_runs_of_two_settings_share_no_column(tmp_path: Path, difference: str) -> None:
    """Runs of different settings must not be compared: each setting has its own column, and no method is marked."""
    first, second = DIFFERING[difference]
    write_seeds(tmp_path, "lora", 0.2, **first)
    write_seeds(tmp_path, "sds_lora", 0.8, **second)
    table = built("grid", tmp_path)
    assert len(table.table.columns) == 2
    for column in table.table.columns:
        shown = [cell for cell in table.cells.values() if cell.column == column.name and cell.ours]
        assert len(shown) == 1 and shown[0].mark == "" and shown[0].ours.n == 3  # type: ignore[union-attr]


@pytest.mark.parametrize("difference", DIFFERING)
def test_fixed_table_names_the_key_and_values_that_keep_a_row_apart(tmp_path: Path, difference: str) -> None:
    """In a table with given columns, two of three rows share a setting; the third is kept apart and not tested."""
    first, second = DIFFERING[difference]
    write_seeds(tmp_path, "lora", 0.2, **second)
    write_seeds(tmp_path, "dora", 0.3, **second)
    write_seeds(tmp_path, "sds_lora", 0.8, **first)
    table = fixed_table(tmp_path, "lora", "dora", "sds_lora")
    cells = {row: table.cells[row, "all"] for row in ("lora", "dora", "sds_lora")}
    assert not cells["lora"].apart and not cells["dora"].apart and cells["sds_lora"].apart
    assert cells["sds_lora"].mark == "" and cells["dora"].mark != ""
    line = next(line for line in table.footer if line.startswith("Row sds_lora"))
    assert all(key in line and text in line for key, text in cells["sds_lora"].apart.items())


def fixed_table(root: Path, *methods: str) -> Built:
    """A table whose rows and column are given in advance, as those of a paper are."""
    runs, _ = load(root)
    some = grid(runs)
    rows = tuple(replace(some.rows[0], name=name, where={"method": name}) for name in methods)
    return build(replace(some, rows=rows, columns=(replace(some.columns[0], name="all", where={}),)), runs)


def test_rows_of_two_equally_frequent_settings_are_not_compared(tmp_path: Path) -> None:
    write_seeds(tmp_path, "lora", 0.2, **train_config(max_steps=10))
    write_seeds(tmp_path, "sds_lora", 0.8, **train_config(max_steps=80))
    table = fixed_table(tmp_path, "lora", "sds_lora")
    assert table.cells["lora", "all"].apart == {"train.max_steps": "10"}
    assert table.cells["sds_lora", "all"].apart == {"train.max_steps": "80"}
    assert {cell.mark for cell in table.cells.values()} == {""}


def test_methods_may_differ_in_method_keys_and_tuned_values(tmp_path: Path) -> None:
    """Methods may differ in their own keys, in rank and alpha, in the tuned value and in the seed."""
    write_seeds(tmp_path, "lora", 0.5, tuning=tuned(1e-3, [1e-4, 1e-3, 1e-2]), **train_config(batch_size=32))
    method = {"name": "sds_lora", "rank": 16, "alpha": 4.0}
    config = {"method": method, "train": {"lr": 1e-2, "batch_size": 32}}
    write_seeds(tmp_path, "sds_lora", 0.6, rank=16, lr=1e-2, tuning=tuned(1e-2, [1e-4, 1e-3, 1e-2]), config=config)
    table = built("grid", tmp_path)
    assert len(table.table.columns) == 1
    assert not any(cell.apart or cell.problems for cell in table.cells.values())


def test_inert_keys_keep_no_runs_apart(tmp_path: Path) -> None:
    """Two seeds differ in `betas`, which their optimizer does not use, and their records list the key as inert."""
    for seed, betas in ((0, [0.9, 0.999]), (1, [0.8, 0.9])):
        train = {"lr": 1e-3, "epochs": 1.0, "batch_size": 8, "optimizer": "sgd", "betas": betas}
        record = make_record("lora", seed, {"gsm8k": 0.5}, config={"train": train})
        write_run(tmp_path / "known", record.model_copy(update={"inert": ["train.betas"]}))
        write_run(tmp_path / "unknown", record)
    (cell,) = built("grid", tmp_path / "known").cells.values()
    assert cell.ours is not None and cell.ours.n == 2
    assert len(built("grid", tmp_path / "unknown").table.columns) == 2, "a record without the list of inert keys"


def test_untuned_methods_at_different_rates_are_not_compared(tmp_path: Path) -> None:
    """Without tuning, a method at one rate is not compared with another method at another rate."""
    for method, lr in (("lora", 1e-3), ("dora", 5e-3)):
        write_seeds(tmp_path, method, 0.2 if method == "lora" else 0.8, lr=lr)
    table = built("grid", tmp_path)
    assert len(table.table.columns) == 1
    assert {cell.row: dict(cell.apart) for cell in table.cells.values()} == {
        "lora_r8": {"train.lr": "0.001"},
        "dora_r8": {"train.lr": "0.005"},
    }


def test_rate_set_by_hand_is_not_compared_with_the_protocols(tmp_path: Path) -> None:
    """Two methods at the rates that the protocol gives each of them, and one whose rate somebody chose."""
    for method, score, lr, given in (("lora", 0.2, 1e-3, 1e-3), ("dora", 0.3, 2e-3, 2e-3), ("pissa", 0.8, 5e-3, 1e-3)):
        write_seeds(tmp_path, method, score, lr=lr, config={"protocol": {"name": "quick", "lr": given}})
    table = built("grid", tmp_path)
    assert {cell.row: dict(cell.apart) for cell in table.cells.values()} == {
        "lora_r8": {},
        "dora_r8": {},
        "pissa_r8": {"train.lr": "0.005"},
    }
    assert {cell.row: cell.mark for cell in table.cells.values()} == {"lora_r8": "", "dora_r8": "best", "pissa_r8": ""}


@pytest.mark.parametrize("status", ["failed", "oom"])
def test_failed_run_is_in_the_row_of_its_own_setting(tmp_path: Path, status: str) -> None:
    """A diverged run at learning rate 1e9 does not count among the runs at 1e-3."""
    write_seeds(tmp_path, "lora", 0.5)
    write_run(tmp_path, make_record("lora", 0, lr=1e9, status=status))
    table = built("grid", tmp_path)
    assert {name: cell.status for (name, _), cell in table.cells.items()} == {
        "lora_r8[train.lr=0.001]": "value",
        "lora_r8[train.lr=1000000000.0]": status,
    }
    assert {cell.note for cell in table.cells.values()} == {""}


def test_failed_run_of_another_alpha_has_its_own_row(tmp_path: Path) -> None:
    alpha = {alpha: {"method": {"name": "lora", "rank": 8, "alpha": alpha}} for alpha in (16.0, 64.0)}
    write_seeds(tmp_path, "lora", 0.5, config=alpha[16.0])
    write_run(tmp_path, make_record("lora", 0, status="oom", config=alpha[64.0]))
    statuses = {row: cell.status for (row, _), cell in built("grid", tmp_path).cells.items()}
    assert statuses == {"lora_r8[method.alpha=16.0]": "value", "lora_r8[method.alpha=64.0]": "oom"}


def test_failed_run_of_another_setting_has_its_own_column(tmp_path: Path) -> None:
    write_seeds(tmp_path, "lora", 0.5, **train_config(max_steps=10))
    write_run(tmp_path, make_record("lora", 0, status="oom", **train_config(max_steps=80)))
    cells = built("grid", tmp_path).cells
    found = {cell.column: cell.status for cell in cells.values() if cell.status != "missing"}
    assert found == {"micro/gsm8k/train.max_steps=10": "value", "micro/gsm8k/train.max_steps=80": "oom"}


def test_untuned_run_is_kept_apart_from_tuned_runs(tmp_path: Path) -> None:
    """It was scored on test data, so it is no tuning run: a grid gives it its own column, a fixed table excludes it."""
    write_seeds(tmp_path, "lora", 0.5, tuning=tuned(1e-3, [1e-4, 1e-3, 1e-2]))
    by_hand = make_record("lora", 7, {"gsm8k": 0.9}, lr=2e-3)
    write_run(tmp_path, by_hand)
    table = built("grid", tmp_path)
    assert table.excluded == {}
    shown = [cell.runs[0].id for cell in table.cells.values() if len(cell.runs) == 1]
    assert shown == [by_hand.run_id]
    one_cell = fixed_table(tmp_path, "lora")
    assert one_cell.excluded == {by_hand.run_id: "not tuned, where other runs of its cell are"}


def test_differences_are_one_line_per_key() -> None:
    class Named:
        def __init__(self, name: str) -> None:
            self.id = name

    facts = [{"steps": 10, "same": 1}, {"steps": 80, "same": 1}, {"same": 1}]
    assert setting.differences([Named("a"), Named("b"), Named("c")], facts) == ["steps: 10 in a; 80 in b"]  # type: ignore[list-item]


def test_where_accepts_configuration_keys_and_names_unknown_ones(tmp_path: Path) -> None:
    for limit in (64, 200):
        write_seeds(tmp_path, "lora", 0.5, config={"eval": {"limit": limit, "untrained": False}})
    assert {run.flat["config.eval.limit"] for run in load(tmp_path, ["eval.limit=64"])[0]} == {64}
    assert len(load(tmp_path, ["train.lr=1e-3", "eval.untrained=false", "method=lora"])[0]) == 6
    with pytest.raises(Refused, match=r"no run has the key eval\.limt\. Did you mean 'eval\.limit'\?"):
        load(tmp_path, ["eval.limt=64"])
    with pytest.raises(Refused, match="no run is left; method is lora"):
        load(tmp_path, ["method=dora"])
    with pytest.raises(Refused, match=r"no run is left; eval\.limit is 200, 64"):
        load(tmp_path, ["eval.limit=65"])


def test_plan_selects_its_runs(tmp_path: Path) -> None:
    write_seeds(tmp_path / "runs", "lora", 0.5)
    write_seeds(tmp_path / "runs", "dora", 0.5)
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


def cost_of(root: Path, measure: str) -> float | None:
    (run,), _ = load(root)
    return value(run, Column("c", "", {}, measure, format="number", better=""))


def test_costs_that_belong_to_no_single_run_are_empty(tmp_path: Path) -> None:
    """Resident memory belongs to the process, and the time and memory of a group cannot be charged to one run."""
    cuda = Memory(peak_bytes=7, kind="cuda_allocated")
    for name, record, memory, seconds in (
        ("process", make_record("lora", 0, {"gsm8k": 0.5}), None, 20.0),
        ("device", make_record("lora", 0, {"gsm8k": 0.5}, memory=cuda), 7, 20.0),
        ("group", make_record("lora", 0, {"gsm8k": 0.5}, memory=cuda), None, None),
    ):
        if name == "group":
            record.placing["group_size"] = 2
        write_run(tmp_path / name, record)
        assert cost_of(tmp_path / name, "memory.peak_bytes") == memory, name
        assert cost_of(tmp_path / name, "seconds.train") == seconds, name


def test_times_on_a_shared_machine_are_noted(tmp_path: Path) -> None:
    """The table's footer and the run's page state how many cores other work held during a run."""
    for seed, others in enumerate((None, 0.1, 1.0)):
        record = make_record("lora", seed, {"gsm8k": 0.5})
        record.attempts = [Attempt(started="2026-11-27T00:00:00+00:00", status="done", others=others)]
        write_run(tmp_path, record)
    runs, _ = load(tmp_path)
    time = Column("time", "Training, s", {}, "seconds.train", format="seconds", better="")
    note = "Times of 1 of 3 runs are those of a shared machine: other work held up to 1.0 cores on average."
    assert note in build(replace(grid(runs), columns=(*grid(runs).columns, time)), runs).footer
    assert not any("shared machine" in line for line in build(grid(runs), runs).footer), (
        "a table without times needs no note"
    )
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
    assert cells["lora_r8", "micro/gsm8k"].ours is not None  # scores do not depend on the machine
    assert cells["lora_r8", "time"].status == "unequal"
    assert cells["lora_r8", "time"].problems[0].startswith("device: cpu: one in")


def test_facts_are_written_as_readable_text() -> None:
    """Evaluated data is written as the data set's name and the first digits of its hash, not as a Python tuple."""
    hashes = ("a" * 64, "b" * 64)
    facts = [{"evaluated data": (("gsm8k", digest),)} for digest in hashes]
    assert setting.differing_facts(facts) == [{"evaluated data": f"gsm8k {digest[:12]}"} for digest in hashes]
    assert setting.text(("q_proj", "v_proj")) == "q_proj v_proj"
    assert setting.text((("math", "a" * 64), ("gsm8k", "b" * 64))) == f"math {'a' * 12}, gsm8k {'b' * 12}"
