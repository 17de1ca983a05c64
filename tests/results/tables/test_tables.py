"""Tables made from hand-made records: cells, footers, refusals, marks and formats."""

from __future__ import annotations

import csv
import io
import math
import shutil
from pathlib import Path

import numpy as np
import pytest

from sdsbench.__main__ import main
from sdsbench.core.errors import ConfigError, Unavailable
from sdsbench.core.record import Seconds
from sdsbench.results.tables import by_name
from sdsbench.results.tables.build import build
from sdsbench.results.tables.definition import FactsTable
from sdsbench.results.tables.grid import grid
from sdsbench.results.tables.loaded_runs import load
from sdsbench.results.tables.published import values
from sdsbench.results.tables.render import FORMATS
from sdsbench.results.tables.table_registry import TABLES, definition_of, get
from sdsbench.results.tables.trace import trace
from tests.results.tables.fixtures import built, make_record, make_samples, tuned, write_run
from tests.results.tables.papers import write_paper_runs


def test_cells_hold_own_and_published_values_and_the_status_of_failed_runs(paper_runs: Path) -> None:
    frame = built("lora_sb/table1", paper_runs).frame.set_index(["row", "column"])
    lora = frame.loc[("lora_r32", "mistral_7b/gsm8k")]
    assert lora["n"] == 3 and lora["paper"] == 61.94
    assert lora["difference"] == pytest.approx(lora["ours"] - 61.94)
    assert lora["low"] < lora["ours"] < lora["high"]
    assert frame.loc[("full_ft", "gemma2_9b/math"), "status"] == "oom"
    assert frame.loc[("pissa_r32", "gemma2_9b/math"), "status"] == "missing"
    assert frame.loc[("pissa_r32", "gemma2_9b/params"), "status"] == "counted"
    assert math.isnan(frame.loc[("sds_lora_r32", "mistral_7b/gsm8k"), "paper"])
    failed = built("lora_sb/table2", paper_runs).frame.set_index(["row", "column"])
    assert failed.loc[("dora_r32", "llama3.2_3b/average"), "status"] == "failed"


def test_every_published_number_of_lora_sb_tables_1_to_7_has_a_cell() -> None:
    for number in "1234567":
        printed = values("lora_sb")
        printed = printed[printed["table"] == number]
        shown = build(get(f"lora_sb/table{number}"), []).frame["paper"].dropna()
        assert sorted(shown) == sorted(printed["value"]), number


def test_parameter_counts_equal_the_published_ones_but_for_one_misprint() -> None:
    """LoRA-SB prints 55.20K for 24 x 24 x 96 = 55,296."""
    wrong = {}
    for number in "123":
        frame = build(get(f"lora_sb/table{number}"), []).frame
        for cell in frame[frame["format"] == "count"].dropna(subset="paper").to_dict("records"):
            if not cell["within_tolerance"]:
                wrong[cell["row"]] = (cell["ours"], cell["paper"])
    assert wrong == {"lora_xs_r24": (55296, 55200), "lora_sb_r24": (55296, 55200)}


def test_average_over_tasks_is_taken_seed_by_seed(tmp_path: Path) -> None:
    records = write_paper_runs(tmp_path, "lora_sb/table3", seeds=2)
    frame = built("lora_sb/table3", tmp_path).frame.set_index(["row", "column"])
    mean_by_seed = {
        seed: np.mean([100 * r.scores[0].value for r in records if r.method == "lora" and r.seed == seed])
        for seed in (0, 1)
    }
    cell = frame.loc[("lora_r8", "roberta_large/average")]
    assert cell["ours"] == pytest.approx((mean_by_seed[0] + mean_by_seed[1]) / 2)
    deviation = abs(mean_by_seed[0] - mean_by_seed[1]) / math.sqrt(2)
    assert (cell["high"] - cell["low"]) / 2 == pytest.approx(12.706 * deviation / math.sqrt(2), rel=1e-4)
    assert len(cell["runs"].split()) == 12


def test_footer_states_code_runs_devices_data_and_tuning(paper_runs: Path) -> None:
    text = "\n".join(built("lora_sb/table1", paper_runs).footer)
    assert "Commit (runs): abc1234 (66); runs of code that was not committed: 6; code: core c0." in text
    assert "Runs: 66 finished, 6 not (6 oom)" in text
    assert "Devices (runs): cpu: test, float32, 1 thread, torch 2.13.0 (66)" in text
    assert "metamath test: local, 80 rows" in text
    assert "Tuning: none" in text and "Excluded runs: none." in text


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("number", "123")
def test_rebuilt_table_has_the_same_bytes(paper_runs: Path, tmp_path: Path, kind: str, number: str) -> None:
    """A copy of the runs in another folder gives the same bytes."""
    copy = tmp_path / "elsewhere"
    shutil.copytree(paper_runs, copy)
    render = FORMATS[kind][1]
    assert render(built(f"lora_sb/table{number}", paper_runs)) == render(built(f"lora_sb/table{number}", copy))


def test_all_formats_hold_the_same_values(paper_runs: Path) -> None:
    table = built("lora_sb/table1", paper_runs)
    texts = {name: render(table) for name, (_, render) in FORMATS.items()}
    cell = next(row for row in csv.DictReader(io.StringIO(texts["csv"]))
                if (row["row"], row["column"]) == ("lora_sb_r96", "gemma2_9b/gsm8k"))  # fmt: skip
    number = f"{float(cell['ours']):.2f}"
    for name, printed in (("markdown", "paper 78.40"), ("latex", r"\textit{78.40}"), ("html", "paper 78.40")):
        assert number in texts[name] and printed in texts[name] and "OOM" in texts[name]
    assert "| OOM<br>paper 63.87 |" in texts["markdown"]
    assert "\\toprule" in texts["latex"] and "\\begin{tabular}{@{}lrrr" in texts["latex"]


@pytest.mark.parametrize(
    "change, words",
    [
        ({"protocol": "other"}, "protocol"),
        ({"version": 2}, "evaluation version: 1 in {a}; 2 in {b}"),
        ({"source": "hub"}, "data source"),
        ({"code_hash": "c9"}, "code.core: c0 in {a}; c9 in {b}"),
        ({"lr": 5e-3}, "lr: 0.001 in {a}; 0.005 in {b}"),
        ({"n": 100}, "questions"),
        ({"torch": "2.12.1"}, "torch: 2.12 in {b}; 2.13 in {a}"),
        ({"device": "cuda: A6000"}, "device kind: cpu in {a}; cuda in {b}"),
        ({"dtype": "bfloat16"}, "dtype"),
        ({"config": {"train": {"lr": 1e-3, "max_steps": 10}}}, "train.max_steps"),
    ],
)
def test_runs_of_different_settings_are_not_averaged_and_the_difference_is_named(
    tmp_path: Path, change: dict, words: str
) -> None:
    from dataclasses import replace

    if "config" in change:
        first = make_record("lora", 0, {"gsm8k": 0.5}, config={"train": {"lr": 1e-3, "max_steps": 80}})
    else:
        first = make_record("lora", 0, {"gsm8k": 0.5})
    b = make_record("lora", 1, {"gsm8k": 0.6}, **change)
    for record in (first, b, make_record("dora", 0, {"gsm8k": 0.5})):
        write_run(tmp_path, record)
    runs, _ = load(tmp_path)
    table = grid(runs)
    rows = tuple(replace(table.rows[0], name=name, where={"method": name}) for name in ("lora", "dora"))
    column = replace(table.columns[0], where={"model": "micro"})
    table = build(replace(table, rows=rows, columns=(column,)), runs)
    cell = table.cells["lora", column.name]
    assert cell.status == "unequal" and cell.ours is None
    assert words.format(a=first.run_id, b=b.run_id) in "; ".join(cell.problems)
    assert any(line.startswith(f"Row lora, column {column.name}: not averaged") for line in table.footer)
    assert "| unequal |" in FORMATS["markdown"][1](table)
    assert table.cells["dora", column.name].ours is not None  # other cells are unaffected


def test_two_runs_of_one_seed_are_not_averaged(tmp_path: Path) -> None:
    for order in (0, 1):
        write_run(tmp_path, make_record("lora", 0, {"gsm8k": 0.5}, config={"seeds": {"data": order}}))
    cell = built("grid", tmp_path).cells["lora_r8", "micro/gsm8k"]
    assert cell.status == "unequal" and "seed 0 occurs in" in cell.problems[0]


def test_tuning_runs_and_runs_on_stand_in_data_are_excluded_and_listed(tmp_path: Path) -> None:
    chosen = tuned(2e-3, [1e-3, 2e-3], seeds=[9])
    write_run(tmp_path, make_record("lora", 0, {"gsm8k": 0.5}, lr=2e-3, tuning=chosen))
    write_run(tmp_path, make_record("lora", 1, {"gsm8k": 0.6}, lr=2e-3, tuning=chosen))
    held_back = {"eval": {"split": "validation"}}
    grid_run = make_record("lora", 9, {"gsm8k": 0.9}, stage="validation", config=held_back)
    write_run(tmp_path, grid_run)
    table = built("grid", tmp_path)
    assert table.frame["ours"].tolist() == [pytest.approx(55.0)]
    assert table.excluded == {grid_run.run_id: "scored on rows held back from training, to choose a value"}
    text = "\n".join(table.footer)
    assert "Tuning: train.lr among 0.001, 0.002, 1 seeds (9) each, by gsm8k (flexible)" in text
    assert "Chosen for GSM8K (embedded): LoRA, r 8: 0.002 (at the end of 0.001 to 0.002)." in text
    paper = make_record(
        "lora",
        0,
        {"gsm8k": 0.5},
        model="mistral_7b",
        task="metamath",
        rank=32,
        protocol="lora_sb/arithmetic",
        scorer="paper",
    )
    write_run(tmp_path, paper)
    strict = built("lora_sb/table1", tmp_path)
    assert strict.cells["lora_r32", "mistral_7b/gsm8k"].status == "missing"
    assert "embedded data stands in" in strict.excluded[paper.run_id]


def test_grid_of_validation_scores_holds_every_value_of_the_grid(tmp_path: Path) -> None:
    """The chosen value's row has the final runs, too, which have no validation score and displace no tuning run."""
    chosen, seeds = tuned(2e-3, [1e-3, 2e-3], seeds=[100, 101, 102]), (100, 101, 102)
    for lr, score in ((1e-3, 0.3), (2e-3, 0.4)):
        for seed in seeds:
            held_back = {"eval": {"split": "validation"}}
            write_run(
                tmp_path, make_record("lora", seed, {"gsm8k": score}, stage="validation", lr=lr, config=held_back)
            )
    for seed in range(3):
        write_run(tmp_path, make_record("lora", seed, {"gsm8k": 0.5}, lr=2e-3, tuning=chosen))
    runs, damaged = load(tmp_path)
    shown = {row: cell.ours for (row, _), cell in build(grid(runs, "validation"), runs, damaged).cells.items()}
    assert {row: ours and (ours.mean, ours.n) for row, ours in shown.items()} == {
        "lora_r8[train.lr=0.001]": (pytest.approx(30.0), 3),
        "lora_r8[train.lr=0.002]": (pytest.approx(40.0), 3),
    }


def test_cell_notes_how_many_of_its_runs_failed(tmp_path: Path) -> None:
    for seed, status in enumerate(["done", "done", "oom", "failed"]):
        write_run(tmp_path, make_record("lora", seed, {"gsm8k": 0.5} if status == "done" else None, status=status))
    table = built("grid", tmp_path)
    assert table.frame.iloc[0]["note"] == "1 failed, 1 oom"
    assert "[1 failed, 1 oom]" in FORMATS["markdown"][1](table)


def test_each_variant_of_a_method_is_a_row(tmp_path: Path) -> None:
    for lr in (1e-3, 2e-3):
        for seed in (0, 1):
            write_run(tmp_path, make_record("lora", seed, {"gsm8k": 0.5 + 10 * lr}, lr=lr))
    frame = built("grid", tmp_path).frame
    assert frame["row"].tolist() == ["lora_r8[train.lr=0.001]", "lora_r8[train.lr=0.002]"]
    assert frame["n"].tolist() == [2, 2]


def test_damaged_records_are_named(tmp_path: Path) -> None:
    write_run(tmp_path, make_record("lora", 0, {"gsm8k": 0.5}))
    bad = write_run(tmp_path, make_record("lora", 1, {"gsm8k": 0.7}))
    (bad / "record.json").write_text("{}")
    table = built("grid", tmp_path)
    assert table.frame.iloc[0]["n"] == 1
    assert any(bad.name in line and "damaged" in line for line in table.footer)


@pytest.mark.parametrize(
    ("evaluation", "scorer", "words"),
    [
        ("math", "paper", "paper (LoRA-SB's published program, with antlr: LaTeX is parsed)"),
        ("math", "paper_no_antlr", "paper_no_antlr (LoRA-SB's published program, without antlr, as its requirements"),
        ("gsm8k", "metamath", "metamath (MetaMath's published program)"),
        ("boolq", "paper", "paper (LLM-Adapters' published program)"),
        ("boolq", "lora_sb", "lora_sb (LoRA-SB's published program: in lower case)"),
    ],
)
def test_footer_names_the_program_that_graded(evaluation: str, scorer: str, words: str, tmp_path: Path) -> None:
    write_run(tmp_path, make_record("lora", 0, {evaluation: 0.5}, task=evaluation, scorer=scorer))
    assert any(f"{evaluation} v1 by {words}" in line for line in built("grid", tmp_path).footer)


def test_footer_names_the_data_set_that_a_stand_in_replaces(tmp_path: Path) -> None:
    record = make_record("lora", 0, {"gsm8k": 0.5})
    used = [data.model_copy(update={"dataset": "metamath_style_derived"}) for data in record.provenance.data]
    provenance = record.provenance.model_copy(update={"data": used})
    write_run(tmp_path, record.model_copy(update={"provenance": provenance}))
    assert any("not MetaMathQA" in line for line in built("grid", tmp_path).footer if line.startswith("Data: "))


@pytest.mark.parametrize("verb", [["table", "grid"], ["table", "compare"], ["report"]], ids=" ".join)
def test_folder_without_runs_is_named(
    verb: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bare").mkdir()
    assert main([*verb, "--runs", "bare"]) == 3
    assert "bare: no run is there" in capsys.readouterr().err


def test_grid_of_runs_without_a_score_tells_their_states(tmp_path: Path) -> None:
    write_run(tmp_path, make_record("lora", 0, {}))
    with pytest.raises(Unavailable, match=r"no run has a trained score.*runs read: 1 done"):
        built("grid", tmp_path)


def test_trace_of_a_cell_lists_the_files_of_its_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write_run(tmp_path, make_record("lora", 3, {"gsm8k": 0.5}), {"gsm8k": make_samples([True, False])}, [])
    text = trace(built("grid", tmp_path), "lora_r8", "micro/gsm8k")
    for part in (
        folder.name,
        "seed 3",
        str(folder / "config.yaml"),
        str(folder / "metrics.jsonl"),
        "gsm8k.trained",
        "0.5",
    ):
        assert part in text
    words = ["trace", "compare", "lora_r8", "micro/gsm8k", "--runs", str(tmp_path)]
    assert main(words) == 0
    assert capsys.readouterr().out.startswith("table compare, row lora_r8"), "the name that was asked for"
    with pytest.raises(ConfigError, match=r"ROW='lara'.*\n.*COLUMN='x'"):
        trace(built("grid", tmp_path), "lara", "x")


def test_lora_sb_table_6_holds_start_and_epoch_times(tmp_path: Path) -> None:
    start = dict(get("lora_sb/table6").rows[0].where)
    method = {key.removeprefix("config.method."): value for key, value in start.items() if key.startswith("config.")}
    for seed in (0, 1):
        record = make_record(
            "lora_sb",
            seed,
            model="mistral_7b",
            task="metamath",
            rank=96,
            protocol="lora_sb/arithmetic",
            source="local",
            seconds=Seconds(init=100.0, train=8000.0 + seed),
            config={"method": {"name": "lora_sb", "rank": 96, **method}},
        )
        write_run(tmp_path, record)
    frame = built("lora_sb/table6", tmp_path).frame.set_index(["row", "column"])
    assert frame.loc[("mistral_7b", "init_seconds"), "ours"] == 100.0
    assert frame.loc[("mistral_7b", "epoch_seconds"), "paper"] == 11037
    assert frame.loc[("mistral_7b", "init_share"), "ours"] == pytest.approx(1.25, rel=1e-3)


SETTINGS = ("lora_sb/table8", "lora_sb/table9")


def settings_table(name: str) -> FactsTable:
    found = definition_of(name)
    assert isinstance(found, FactsTable)
    return found


@pytest.mark.parametrize("name", SETTINGS)
def test_protocol_settings_equal_the_papers_settings(name: str) -> None:
    table = settings_table(name)
    frame = table.frame()
    assert frame["equal"].all() and len(frame) >= 8
    texts = by_name.facts_texts(table)
    assert texts.keys() == {"md", "tex", "html", "csv"} and all("warmup" in text for text in texts.values())
    assert "| yes |" in texts["md"] and ",True," in texts["csv"]


def test_table_and_trace_commands(paper_runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["table", "lora_sb/table1", "--runs", str(paper_runs), "--output", str(tmp_path)]) == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        f"lora_sb_table1.{e}" for e in ("csv", "html", "md", "tex")
    ]
    assert main(["trace", "lora_sb/table1", "lora_r32", "mistral_7b/math", "--runs", str(paper_runs)]) == 0
    assert "paper 15.98" in capsys.readouterr().out
    assert main(["table", "lora_sb/table11", "--runs", str(paper_runs)]) == 2
    assert "Did you mean 'lora_sb/table1'?" in capsys.readouterr().err
    assert main(["table", "grid", "--runs", str(tmp_path / "none")]) == 3


def test_rows_and_columns_of_a_table_have_unique_names() -> None:
    for name in TABLES:
        table = definition_of(name)
        assert table.name == name
        if isinstance(table, FactsTable):
            continue
        for names in ([r.name for r in table.rows], [c.name for c in table.columns]):
            assert len(names) == len(set(names)), table.name


def test_every_published_number_of_other_papers_has_a_cell() -> None:
    """The 88 numbers of DoRA, LoRA-Pro and the comparison of learning rates (`lr_matters`)."""
    shown = 0
    for paper in ("dora", "lora_pro", "lr_matters"):
        tables = [get(name) for name in TABLES if name.startswith(f"{paper}/")]
        found = [value for table in tables for value in build(table, []).frame["paper"].dropna()]
        assert sorted(found) == sorted(values(paper)["value"]), paper
        shown += len(found)
    assert shown == 88
