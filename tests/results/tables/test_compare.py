"""`sdsbench table compare --reference lora`: every method is tested against the reference, in one family of tests."""

from __future__ import annotations

import csv
import io
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.multitest import multipletests

from sdsbench.__main__ import main
from sdsbench.core.errors import Refused
from sdsbench.results.report.boards import boards
from sdsbench.results.statistics.correction import holm
from sdsbench.results.statistics.intervals import t_interval
from sdsbench.results.tables.loaded_runs import load
from sdsbench.results.tables.reference_comparison import Compared, compare, frame, render
from tests.results.tables.fixtures import built, make_record, write_run

VALUES = {
    "lora": [0.50, 0.52, 0.54],
    "dora": [0.60, 0.62, 0.66],
    "pissa": [0.20, 0.22, 0.19],
    "sds_lora": [0.51, 0.55, 0.53],
}
EQUAL = ("lora", "dora", "pissa", "rslora", "lora_plus", "lora_ga", "lora_xs", "lora_pro", "sds_lora")


def write_runs(root: Path, values: dict[str, list[float]], **options: Any) -> None:
    for method, scores in values.items():
        for seed, score in enumerate(scores):
            write_run(root, make_record(method, seed, {"gsm8k": score}, **options))


def compare_grid(root: Path, **options: Any) -> Compared:
    return compare(built("grid", root), **options)


def test_row_holds_difference_interval_p_values_and_detectable_effect(tmp_path: Path) -> None:
    write_runs(tmp_path, VALUES)
    rows = frame(compare_grid(tmp_path)).set_index("row")
    assert list(rows.index) == ["dora_r8", "pissa_r8", "sds_lora_r8"]
    raw = []
    for method in ("dora", "pissa", "sds_lora"):
        ours, theirs = [[100 * value for value in VALUES[name]] for name in (method, "lora")]
        welch = stats.ttest_ind(ours, theirs, equal_var=False)
        row = rows.loc[f"{method}_r8"]
        assert row["difference"] == pytest.approx(np.mean(ours) - np.mean(theirs))
        assert (row["low"], row["high"]) == pytest.approx(tuple(welch.confidence_interval()))
        assert row["p_value"] == pytest.approx(welch.pvalue) and row["seeds"] == 3
        assert row["detectable"] > (row["high"] - row["low"]) / 2
        raw.append(welch.pvalue)
    assert rows["p_holm"].tolist() == pytest.approx(holm(raw))


def test_all_tasks_of_a_table_are_one_family_in_table_and_report(tmp_path: Path) -> None:
    """Four differences over two tasks are adjusted together, both in the table and on the report's pages."""
    write_runs(tmp_path, {method: VALUES[method] for method in ("lora", "dora", "sds_lora")})
    for method, scores in (("lora", (0.30, 0.33, 0.31)), ("dora", (0.38, 0.35, 0.36)), ("sds_lora", (0.31, 0.3, 0.33))):
        for seed, score in enumerate(scores):
            write_run(tmp_path, make_record(method, seed, {"math": score}, task="math"))
    whole = compare_grid(tmp_path)
    raw = [d.contrast.comparison.p_value for d in whole.differences if d.contrast]
    assert len(raw) == whole.tests == 4
    assert [d.adjusted for d in whole.differences] == pytest.approx(multipletests(raw, method="holm")[1].tolist())
    on_pages = boards(load(tmp_path)[0])
    shown = {(d.column.name, d.row.name): d.adjusted for board in on_pages for d in board.differences}
    assert shown == {(d.column.name, d.row.name): d.adjusted for d in whole.differences}
    family = next(line for line in whole.built.footer if "One family" in line)
    stated = family[family.index("p times the") : family.index(", at 5 %")]
    assert "6 pairs" in stated and all(stated in "\n".join(board.built.footer) for board in on_pages)


def test_detectable_effect_is_found_in_four_studies_of_five(tmp_path: Path) -> None:
    write_runs(tmp_path, {"lora": [0.40, 0.50, 0.60], "dora": [0.45, 0.55, 0.65]})
    detectable = frame(compare_grid(tmp_path))["detectable"].iloc[0]
    rng = np.random.default_rng(0)
    # The true deviation is that of the three seeds, 10 points; the test estimates it again in every study.
    ours, theirs = rng.normal(detectable, 10, (4000, 3)), rng.normal(0, 10, (4000, 3))
    assert np.mean(stats.ttest_ind(ours, theirs, axis=1).pvalue < 0.05) == pytest.approx(0.8, abs=0.03)


def test_pooled_variance_is_used_on_request_and_named(tmp_path: Path) -> None:
    write_runs(tmp_path, VALUES)
    own, pooled = compare_grid(tmp_path), compare_grid(tmp_path, pooled=True)
    assert "one pooled variance" in render(pooled, "markdown") and "own variances" in render(own, "markdown")
    scores = {name: [100 * value for value in values] for name, values in VALUES.items()}
    variance = np.mean([np.var(values, ddof=1) for values in scores.values()])
    half = stats.t.isf(0.025, 8) * math.sqrt(variance * 2 / 3)
    row = frame(pooled).set_index("row").loc["dora_r8"]
    assert (row["high"] - row["low"]) / 2 == pytest.approx(half)


def test_reference_of_the_same_rank_is_used_and_named(tmp_path: Path) -> None:
    write_runs(tmp_path, {"lora": VALUES["lora"], "dora": VALUES["dora"]})
    write_runs(tmp_path, {"lora": VALUES["pissa"], "dora": VALUES["dora"]}, rank=32)
    write_runs(tmp_path, {"full_ft": VALUES["dora"]}, rank=None)
    rows = frame(compare_grid(tmp_path)).set_index("row")
    assert rows.loc["dora_r8", "reference"] == "lora_r8" and rows.loc["dora_r32", "reference"] == "lora_r32"
    assert rows.loc["full_ft", "reference"] == ""
    assert rows.loc["full_ft", "note"] == "several references: LoRA, r 8 and LoRA, r 32; --reference-rank takes one"
    with pytest.raises(Refused, match="there are: dora, full_ft, lora"):
        compare_grid(tmp_path, reference="lara")


def test_declared_reference_rank_serves_every_row(tmp_path: Path) -> None:
    """Other ranks of the reference method are compared too: LoRA at rank 16 is a control of a study at rank 8."""
    write_runs(tmp_path, {"lora": VALUES["lora"], "dora": VALUES["dora"]})
    write_runs(tmp_path, {"lora": VALUES["pissa"]}, rank=16)
    write_runs(tmp_path, {"lora_xs": VALUES["pissa"]}, rank=32)
    write_runs(tmp_path, {"full_ft": VALUES["dora"]}, rank=None)
    found = compare_grid(tmp_path, rank=8)
    rows = frame(found).set_index("row")
    assert sorted(rows.index) == ["dora_r8", "full_ft", "lora_r16", "lora_xs_r32"]
    assert {*rows["reference"]} == {"lora_r8"} and not any(rows["note"]) and found.tests == 4
    assert rows.loc["lora_r16", "difference"] == pytest.approx(100 * (np.mean(VALUES["pissa"]) - 0.52))
    with pytest.raises(Refused, match=r"--reference-rank 4: no run of lora at this rank is here; there are: 8, 16\."):
        compare_grid(tmp_path, rank=4)


def test_only_reference_row_serves_every_rank(tmp_path: Path) -> None:
    write_runs(tmp_path, {"lora": VALUES["lora"]})
    write_runs(tmp_path, {"lora_xs": VALUES["dora"]}, rank=24)
    row = frame(compare_grid(tmp_path)).iloc[0]
    assert (row["row"], row["reference"]) == ("lora_xs_r24", "lora_r8")


def test_untested_rows_name_the_reason(tmp_path: Path) -> None:
    write_runs(tmp_path, {"lora": VALUES["lora"], "dora": [0.9], "pissa": [0.0, 0.0, 0.0]})
    write_run(tmp_path, make_record("dora", 5, status="oom", rank=16))
    rows = frame(compare_grid(tmp_path)).set_index("row")
    assert rows.loc["dora_r8", "note"] == "fewer than 3 seeds" and math.isnan(rows.loc["dora_r8", "p_holm"])
    assert "3 of 3 runs of the method did not learn" in rows.loc["pissa_r8", "note"]
    assert rows.loc["dora_r16", "note"] == "oom"


def test_runs_that_are_left_out_are_named_below_the_comparison(tmp_path: Path) -> None:
    """A damaged run, one that served tuning, one whose code differs within its cell, and a row at another rate."""
    write_runs(tmp_path, {"lora": VALUES["lora"], "dora": VALUES["dora"]})
    write_runs(tmp_path, {"pissa": VALUES["pissa"]}, lr=5e-3)
    write_run(tmp_path, make_record("dora", 3, {"gsm8k": 0.6}, code_hash="other"))
    held_back = make_record("lora", 9, {"gsm8k": 0.9}, stage="validation", config={"eval": {"split": "validation"}})
    write_run(tmp_path, held_back)
    cut = write_run(tmp_path, make_record("lora", 5, {"gsm8k": 0.5}))
    (cut / "record.json").write_text("{}")
    text = render(compare_grid(tmp_path), "markdown").replace("\\", "")
    (excluded,) = [line for line in text.splitlines() if "Excluded runs" in line]
    assert f"held back from training, to choose a value): {held_back.run_id}" in excluded and cut.name in excluded
    assert "Row dora_r8, column micro/gsm8k: not averaged, the runs differ in code.core" in text
    assert "Row pissa_r8, column micro/gsm8k: not compared, another setting: train.lr 0.005" in text
    write_runs(tmp_path / "whole", {"lora": VALUES["lora"], "dora": VALUES["dora"]})
    assert "Excluded runs" not in render(compare_grid(tmp_path / "whole"), "markdown")


def test_seeds_are_those_of_the_difference(tmp_path: Path) -> None:
    """Where seeds are paired, only those count that both sides have; the note says so."""
    for method, first in (("lora", 0), ("dora", 1)):
        for seed in range(first, first + 5):
            write_run(tmp_path, make_record(method, seed, {"gsm8k": 0.5 + 0.01 * seed**2 * first}, family="encoder"))
    compared = compare_grid(tmp_path)
    (row,) = frame(compared).to_dict("records")
    assert (row["seeds"], row["reference_seeds"]) == (4, 4) and row["note"] == "difference over the common seeds"
    (line,) = [line for line in render(compared, "markdown").splitlines() if "| DoRA, r 8 | LoRA, r 8 |" in line]
    assert "| 4 |" in line and "| 5 |" not in line


def test_differences_of_losses_are_not_said_to_be_points(tmp_path: Path) -> None:
    for method in ("lora", "dora"):
        for seed, score in enumerate(VALUES[method]):
            record = make_record(method, seed, {"gsm8k": score, "text": 1 + score})
            loss = record.scores[1].model_copy(update={"unit": "number", "better": "lower"})
            write_run(tmp_path / "both", record.model_copy(update={"scores": [record.scores[0], loss]}))
            write_run(tmp_path / "loss", record.model_copy(update={"scores": [loss]}))
            write_run(tmp_path / "share", record.model_copy(update={"scores": record.scores[:1]}))
    for place, words in (
        ("both", "method - reference, of shares in points of 100; [ ]"),
        ("loss", "method - reference; [ ]"),
        ("share", "method - reference, in points of 100; [ ]"),
    ):
        text = render(compare_grid(tmp_path / place), "markdown").replace("\\", "")
        assert words in text, place


@pytest.mark.parametrize("seeds", [3, 5])
def test_equal_methods_are_seldom_significant(tmp_path: Path, seeds: int) -> None:
    """In a simulation, eight comparisons with one reference have a family-wise error rate of 5 % (7 % is allowed)."""
    write_runs(tmp_path, {method: [0.5] * seeds for method in EQUAL})
    whole = built("grid", tmp_path)
    rng = np.random.default_rng(9)
    studies, false_positives = 200, 0
    for _ in range(studies):
        cells = {}
        for (row, name), cell in whole.cells.items():
            scores = rng.normal(50, 2, seeds).tolist()
            cells[row, name] = replace(cell, ours=t_interval(scores), by_seed=dict(enumerate(scores)))
        found = compare(replace(whole, cells=cells))
        assert found.tests == 8
        false_positives += min(d.adjusted for d in found.differences) < 0.05
    assert false_positives / studies <= 0.07


def test_small_losses_keep_their_significant_digits(tmp_path: Path) -> None:
    for method, losses in (("lora", (0.0123, 0.0126, 0.0124)), ("dora", (0.0111, 0.0112, 0.0113))):
        for seed, loss in enumerate(losses):
            record = make_record(method, seed, {"pairs": loss})
            record.scores = [s.model_copy(update={"unit": "number", "better": "lower"}) for s in record.scores]
            write_run(tmp_path, record)
    text = render(compare_grid(tmp_path), "markdown")
    assert "| 0.01243 ±" in text and "| 0.0112 ±" in text and "| -0.001233 |" in text and "0.01 " not in text


def test_compare_command_writes_all_formats(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_runs(tmp_path / "runs", VALUES)
    where = ["--runs", str(tmp_path / "runs")]
    assert main(["table", "compare", *where]) == 0
    text = capsys.readouterr().out
    assert "**Methods against LoRA** (`compare`)" in text
    assert "| DoRA, r 8 | LoRA, r 8 | 62.67 ±7.59 | +10.67 |" in text
    assert "| LoRA, r 8 |  | 52.00 ±4.97 |" in text, "the reference has a row too"
    assert "Holm-adjusted over the 3 differences of this table" in text
    assert main(["table", "compare", *where, "--reference", "dora", "--output", str(tmp_path)]) == 0
    assert sorted(path.suffix for path in tmp_path.glob("compare.*")) == [".csv", ".html", ".md", ".tex"]
    rows = list(csv.DictReader(io.StringIO((tmp_path / "compare.csv").read_text())))
    assert {row["reference"] for row in rows} == {"dora_r8"}
    assert main(["table", "compare", *where, "--reference", "lara"]) == 2
    assert main(["table", "compare", *where, "--reference-rank", "8"]) == 0
    assert main(["table", "compare", *where, "--reference-rank", "4"]) == 2


def test_note_of_a_table_with_one_difference_does_not_count_it(tmp_path: Path) -> None:
    write_runs(tmp_path, {method: VALUES[method] for method in ("lora", "dora")})
    assert "Holm-adjusted over the one difference of this table; " in render(compare_grid(tmp_path), "markdown")
