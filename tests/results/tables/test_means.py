"""Mean columns of a grid: the means over tasks that task groups define, computed seed by seed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from sdsbench.core.record import Record
from sdsbench.results.tables.render import FORMATS
from sdsbench.runs.aggregate import means_text
from tests.results.tables.fixtures import built, make_record, write_run

GLUE = ("cola", "rte", "mrpc", "stsb", "qnli", "sst2")


def write_glue(root: Path, method: str, seed: int, tasks: Sequence[str] = GLUE) -> list[Record]:
    """Write one record per GLUE task, with scores that differ by task and seed."""
    records = []
    for task in tasks:
        name = f"glue/{task}"
        value = 0.5 + 0.01 * GLUE.index(task) + 0.1 * seed
        records.append(make_record(method, seed, {name: value}, model="minilm", task=name, scorer="accuracy"))
        write_run(root, records[-1])
    return records


def test_grid_has_the_means_of_task_groups(tmp_path: Path) -> None:
    """Only seeds with all member tasks count, with the value that a run prints; else the missing tasks are named."""
    printed, _ = means_text("glue", {"glue": [f"glue/{task}" for task in GLUE]}, write_glue(tmp_path, "lora", 0))
    write_glue(tmp_path, "lora", 1)
    write_glue(tmp_path, "lora", 2, GLUE[:5])
    write_glue(tmp_path, "dora", 0, [task for task in GLUE if task not in ("rte", "qnli")])
    table = built("grid", tmp_path)
    cell = table.cells["lora_r8", "minilm/mean of glue"]
    assert cell.by_seed == {0: pytest.approx(52.5), 1: pytest.approx(62.5)}
    assert "mean glue" in printed and float(printed.split()[-1]) == pytest.approx(cell.by_seed[0])
    assert cell.ours is not None and cell.ours.n == 2 and cell.ours.low < 57.5 < cell.ours.high
    assert cell.note == "2 of 3 seeds have all parts"
    lacking = table.cells["dora_r8", "minilm/mean of glue"]
    assert lacking.ours is None and lacking.note == "without glue/rte, glue/qnli"
    for _, render in FORMATS.values():
        assert "without glue/rte, glue/qnli" in render(table).replace("\\", "")


def test_rows_that_their_parts_do_not_compare_are_not_compared_in_the_mean(tmp_path: Path) -> None:
    """LoRA at one learning rate and DoRA at another are kept apart on every task, and so in the mean over the tasks."""
    for method, gain, lr in (("lora", 0.0, 1e-3), ("dora", 0.2, 5e-3)):
        for seed in range(3):
            for task in GLUE:
                name = f"glue/{task}"
                value = 0.5 + gain + 0.01 * seed
                write_run(tmp_path, make_record(method, seed, {name: value}, task=name, scorer="accuracy", lr=lr))
    table = built("grid", tmp_path)
    for row, rate in (("lora_r8", "0.001"), ("dora_r8", "0.005")):
        cell = table.cells[row, "micro/mean of glue"]
        assert cell.apart == {"train.lr": rate} and cell.mark == "" and cell.p_value is None
    assert "Row dora_r8, column micro/mean of glue: not compared, another setting: train.lr 0.005." in table.footer


def test_grid_has_the_means_of_vtab_groups_and_of_vtab(tmp_path: Path) -> None:
    from sdsbench.tasks.vtab import GROUPS

    score = {f"vtab/{name}": 0.3 + 0.01 * i for i, name in enumerate(n for g in GROUPS.values() for n in g)}
    for task, value in score.items():
        write_run(tmp_path, make_record("lora", 0, {task: value}, model="vit_micro", task=task, scorer="accuracy"))
    cells = built("grid", tmp_path).cells
    groups = [100 * sum(score[f"vtab/{name}"] for name in names) / len(names) for names in GROUPS.values()]
    for group, mean in zip(GROUPS, groups, strict=True):
        assert cells["lora_r8", f"vit_micro/mean of vtab/{group}"].by_seed == {0: pytest.approx(mean)}
    assert cells["lora_r8", "vit_micro/mean of vtab"].by_seed == {0: pytest.approx(sum(groups) / 3)}


def test_means_that_no_row_can_have_are_left_out(tmp_path: Path) -> None:
    from sdsbench.tasks.vtab import GROUPS

    for task in (*(f"vtab/{name}" for name in GROUPS["natural"]), "vtab/camelyon"):
        write_run(tmp_path, make_record("lora", 0, {task: 0.5}, model="vit_micro", task=task, scorer="accuracy"))
    means = {column for _, column in built("grid", tmp_path).cells if "mean" in column}
    assert means == {"vit_micro/mean of vtab/natural"}


def test_single_run_with_all_member_scores_has_their_mean(tmp_path: Path) -> None:
    from sdsbench.tasks.commonsense import BENCHMARKS

    score = {name: 0.4 + 0.01 * i for i, name in enumerate(BENCHMARKS)}
    write_run(tmp_path, make_record("lora", 0, score, task="commonsense", scorer="paper"))
    cell = built("grid", tmp_path).cells["lora_r8", "micro/mean of commonsense"]
    assert cell.by_seed == {0: pytest.approx(100 * sum(score.values()) / 8)}


def test_mean_of_losses_is_a_loss_of_which_less_is_better(tmp_path: Path) -> None:
    from sdsbench.tasks.commonsense import BENCHMARKS

    for method, loss in (("lora", 1.0), ("dora", 2.0)):
        for seed in range(3):
            record = make_record(method, seed, dict.fromkeys(BENCHMARKS, loss + 0.01 * seed), task="commonsense")
            scores = [score.model_copy(update={"unit": "number", "better": "lower"}) for score in record.scores]
            write_run(tmp_path, record.model_copy(update={"scores": scores}))
    cells = built("grid", tmp_path).cells
    best, other = (cells[row, "micro/mean of commonsense"] for row in ("lora_r8", "dora_r8"))
    assert best.by_seed[0] == pytest.approx(1.0) and (best.mark, other.mark) == ("best", "")
