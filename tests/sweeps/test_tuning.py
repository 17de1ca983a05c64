"""Tuning: default seeds, a grid that grows until the best value is inside, and ties decided by validation loss."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from sdsbench.core.errors import ConfigError
from sdsbench.core.record import Losses, Record
from sdsbench.sweeps.blocks import TUNING_SEEDS, define
from sdsbench.sweeps.freeze import extended, freeze
from sdsbench.sweeps.plan import Manifest, Plan, PlannedRun, TunedCell
from sdsbench.sweeps.states import States
from sdsbench.sweeps.tuning import choose, window
from tests.results.tables.fixtures import make_record, tuned, write_run

HELD_BACK = {"eval": {"split": "validation"}}


def sweep_file(folder: Path, **tune: object) -> list[str]:
    (folder / "sweep").mkdir(exist_ok=True)
    tree = {
        "name": "s",
        "blocks": [{"fixed": ["task=gsm8k"], "axes": {"method": ["lora"], "seed": [0, 1, 2]}}],
        "tune": {"key": "train.lr", "grid": [1e-3, 1e-2], **tune},
    }
    (folder / "sweep" / "s.yaml").write_text(yaml.safe_dump(tree))
    return [str(folder)]


def test_default_tuning_seeds_are_several(tmp_path: Path) -> None:
    tune = define(["sweep=s"], sweep_file(tmp_path)).tune
    assert tune is not None and tuple(tune.seeds) == TUNING_SEEDS and len(TUNING_SEEDS) > 1 and tune.extend == 0
    tune = define(["sweep=s"], sweep_file(tmp_path, seeds=[7], extend=2)).tune
    assert tune is not None and tune.seeds == [7] and tune.extend == 2


@pytest.mark.parametrize(
    "tune, words", [({"extend": -1}, "tune.extend=-1"), ({"extend": 1, "grid": [0.0, 1.0]}, "tune.grid")]
)
def test_invalid_extensions_are_refused(tmp_path: Path, tune: dict, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        define(["sweep=s"], sweep_file(tmp_path, **tune))


def test_grid_is_extended_by_its_own_factor() -> None:
    assert extended([3e-3, 1e-3, 1e-2], 0) == [3e-3, 1e-3, 1e-2]
    assert extended([1e-2, 1e-3, 1e-4], 2) == [1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 0.1, 1.0]
    assert extended([2.5e-4, 1e-3, 2e-3], 1) == [6.25e-5, 2.5e-4, 1e-3, 2e-3, 4e-3]


def test_blocks_that_share_a_setting_add_up_their_seeds(tmp_path: Path) -> None:
    (tmp_path / "sweep").mkdir()
    (tmp_path / "sweep/two.yaml").write_text(
        "name: two\nblocks:\n  - fixed: [model=micro, data.source=embedded]\n    axes: {method: [lora], seed: [0, 1]}\n"
        "  - fixed: [model=micro, data.source=embedded]\n    axes: {method: [lora, sds_lora], seed: [2, 3]}\n"
        "tune: {key: train.lr, grid: [1e-3, 1e-2], seeds: [100]}\n"
    )
    manifest, _ = freeze(define(["sweep=two"], [str(tmp_path)]), [str(tmp_path)], lambda _: None)
    seeds = {cell.point["method"]: list(cell.final) for cell in manifest.cells.values()}
    assert seeds == {"lora": ["0", "1", "2", "3"], "sds_lora": ["2", "3"]}


FINAL = f"{'c' * 12}:0"
GRID = [1e-5, 1e-4, 1e-3, 1e-2, 1e-1]  # the three in the middle are declared


def run_id_of(position: int, seed: int) -> str:
    """A run id (sixteen hexadecimal digits) of a position in the grid and a seed."""
    return f"{position:08x}{seed:08x}"


def make_cell(extend: int = 1) -> TunedCell:
    names = [[run_id_of(position, seed) for seed in (100, 101)] for position in range(len(GRID))]
    final = {"0": [run_id_of(position, 0) for position in range(len(GRID))]}
    return TunedCell(point={}, key="train.lr", grid=GRID, seeds=[100, 101], tuning=names, final=final, extend=extend)


def make_records(scores: dict[int, float | None], losses: dict[int, float] | None = None) -> dict[str, Record]:
    """Records of both seeds at each position, by run id; a score of None makes failed runs."""
    found = {}
    for position, score in scores.items():
        for seed in (100, 101):
            status = "failed" if score is None else "done"
            shown = None if score is None else {"gsm8k": score}
            record = make_record("lora", seed, shown, stage="validation", status=status, config=HELD_BACK)
            if losses and position in losses and status == "done":
                record.losses = Losses(first=2.0, last=1.0, tail_mean=1.0, steps=3, validation=losses[position])
            found[run_id_of(position, seed)] = record
    return found


@pytest.mark.parametrize(
    "scores, tried, chosen",
    [
        ({1: 0.1, 2: 0.3, 3: 0.2}, range(1, 4), 2),  # the best is inside the declared grid
        ({1: 0.1, 2: 0.2, 3: 0.3}, range(1, 5), None),  # the last is best, so one more value is needed
        ({1: 0.1, 2: 0.2, 3: 0.3, 4: 0.2}, range(1, 5), 3),
        ({1: 0.1, 2: 0.2, 3: 0.3, 4: 0.4}, range(1, 5), 4),  # the last is best again, and no value is left
        ({1: 0.1, 2: 0.2, 3: 0.3, 4: None}, range(1, 5), 3),  # every run beyond the best fails
        ({0: 0.1, 1: 0.3, 2: 0.2, 3: 0.1}, range(0, 4), 1),
        ({1: 0.1, 2: 0.2}, range(1, 4), None),  # declared runs are missing
    ],
)
def test_grid_grows_until_the_best_value_is_inside(scores: dict, tried: range, chosen: int | None) -> None:
    have = make_records(scores)
    assert window(make_cell(), have.get) == tried
    choice = choose(make_cell(), have.get)
    assert (choice and choice.position) == chosen
    if choice is not None and choice.tuning is not None:
        assert choice.tuning.grid == [GRID[position] for position in tried]
        assert choice.tuning.declared == GRID[1:4] and choice.tuning.extend == 1
        assert choice.tuning.budget == 2 * len(tried)
        assert choice.tuning.interior == (chosen not in (tried[0], tried[-1]))


@pytest.mark.parametrize(("better", "chosen"), [("lower", 1e-4), ("higher", 1e-5)])
def test_best_value_has_the_lowest_loss_or_the_highest_score(better: str, chosen: float) -> None:
    have = make_records({0: 3.0, 1: 1.0, 2: 2.0, 3: 2.5, 4: 2.7})
    for name, record in have.items():
        score = record.scores[0].model_copy(update={"better": better, "unit": "number"})
        other = "higher" if better == "lower" else "lower"
        second_score = score.model_copy(update={"evaluation": "text", "retention": True, "value": 9.0, "better": other})
        have[name] = record.model_copy(update={"scores": [score, second_score]})
    choice = choose(make_cell(extend=0), have.get)
    assert choice is not None and choice.tuning is not None
    assert choice.tuning.chosen == chosen and choice.tuning.scores == [3.0, 1.0, 2.0, 2.5, 2.7], (
        "second scores are not used to choose"
    )


def test_best_last_value_is_chosen_without_extension(tmp_path: Path) -> None:
    plain = make_cell(0)
    have = make_records({0: 0.1, 1: 0.1, 2: 0.1, 3: 0.2, 4: 0.3})
    choice = choose(plain, have.get)
    assert choice is not None and choice.position == 4 and choice.tuning is not None
    assert choice.tuning.declared is None and not choice.tuning.interior


@pytest.mark.parametrize(
    "scores, losses, chosen, by",
    [
        ({1: 0.3, 2: 0.3, 3: 0.3}, {1: 0.7, 2: 0.5, 3: 0.9}, 2, "loss"),
        (
            {1: 0.2, 2: 0.3, 3: 0.3},
            {1: 0.1, 2: 0.5, 3: 0.4},
            3,
            "loss",
        ),  # the lower loss at position 1 has a lower score, so it is no tie
        ({1: 0.3, 2: 0.3, 3: 0.3}, {1: 0.5, 2: 0.5, 3: 0.5}, 1, "value"),
        ({1: 0.3, 2: 0.3, 3: 0.3}, None, 1, "value"),
        (
            {1: 0.3, 2: 0.3, 3: 0.3},
            {2: 0.5, 3: 0.4},
            1,
            "value",
        ),  # one of the tied values has no loss, so losses are not compared
        ({1: 0.1, 2: 0.3, 3: 0.2}, {1: 0.5, 2: 0.9, 3: 0.4}, 2, ""),
    ],
)
def test_ties_are_broken_by_validation_loss_and_then_by_the_smallest_value(
    scores: dict, losses: dict | None, chosen: int, by: str
) -> None:
    have = make_records({0: 0.0, 4: 0.0, **scores}, None if losses is None else {0: 0.1, 4: 0.1, **losses})
    choice = choose(make_cell(extend=0), have.get)
    assert choice is not None and choice.tuning is not None and choice.position == chosen
    assert choice.tuning.tie_broken_by == by


def test_means_that_differ_only_by_rounding_are_equal_scores() -> None:
    """The sum of three scores depends on their order in its last bit."""
    assert sum([0.1, 0.2, 0.3]) != sum([0.3, 0.2, 0.1])
    tuning = tuned(1e-3, [1e-4, 1e-3], losses=[0.9, 0.4])
    tuning.scores = [sum([0.1, 0.2, 0.3]) / 3, sum([0.3, 0.2, 0.1]) / 3]
    assert tuning.tie_broken_by == "loss"


def test_grid_grows_towards_the_lower_loss_where_all_scores_are_equal() -> None:
    """If no rate gives a correct answer, losses decide where the grid grows; without losses, it grows downwards."""
    have = make_records({1: 0.0, 2: 0.0, 3: 0.0}, {1: 0.9, 2: 0.7, 3: 0.5})
    assert window(make_cell(), have.get) == range(1, 5)
    assert window(make_cell(), make_records({1: 0.0, 2: 0.0, 3: 0.0}).get) == range(0, 4)


def test_choice_records_the_validation_losses() -> None:
    scores, losses = {1: 0.1, 2: 0.3, 3: 0.2}, {1: 0.5, 2: 0.9, 3: 0.4}
    choice = choose(make_cell(), make_records(scores, losses).get)
    assert choice is not None and choice.tuning is not None and choice.position == 2
    assert choice.tuning.losses == [0.5, 0.9, 0.4]
    assert (choice.tuning.seeds, choice.tuning.key) == ([100, 101], "train.lr")
    lost = make_records(scores, losses)
    for record in lost.values():
        record.losses = None
    chosen = choose(make_cell(), lost.get)
    assert chosen is not None and chosen.tuning is not None and chosen.tuning.losses is None
    without = choose(make_cell(), make_records(scores).get)
    assert without is not None and without.tuning is not None and without.tuning.losses is None


def test_runs_beyond_the_declared_grid_start_only_where_they_are_needed(tmp_path: Path) -> None:
    tuned = make_cell()
    runs = {name: PlannedRun(role="tuning", point={}, sha256="0") for row in tuned.tuning for name in row}
    runs |= {name: PlannedRun(role="final", point={}, sha256="0") for name in tuned.final["0"]}
    manifest = Manifest(name="p", description="", git_commit=None, placing={}, runs=runs, cells={"c" * 12: tuned})
    plan = Plan(tmp_path, manifest)

    def states(scores: dict[int, float | None]) -> dict[str, str]:
        for name, record in make_records(scores).items():
            (tmp_path / name).mkdir(exist_ok=True)
            write_run(tmp_path, record.model_copy(update={"run_id": name}))
        found = States(plan, tmp_path)
        return {slot.key: found.of(slot).state for slot in plan.slots() if slot.extends or slot.cell}

    low, high = ([run_id_of(position, seed) for seed in (100, 101)] for position in (0, 4))
    assert states({1: 0.1}) == dict.fromkeys((*low, *high, FINAL), "waiting")
    assert states({2: 0.2, 3: 0.3}) == {
        **dict.fromkeys(low, "waiting"), **dict.fromkeys(high, "not started"), FINAL: "waiting",
    }  # fmt: skip
    assert states({4: 0.1}) == {
        **dict.fromkeys(low, "unneeded"), **dict.fromkeys(high, "done"), FINAL: "not started",
    }  # fmt: skip


def test_problem_of_every_run_of_a_tuned_cell_is_one_message(tmp_path: Path) -> None:
    """Runs that cannot be composed make no cell."""
    (tmp_path / "sweep").mkdir()
    (tmp_path / "sweep/wrong.yaml").write_text(
        "name: wrong\nblocks:\n  - fixed: [model=micro, data.source=embedded, method.rank=0]\n"
        "    axes: {method: [lora], seed: [0]}\ntune: {key: train.lr, grid: [1e-3, 1e-2], seeds: [100]}\n"
    )
    with pytest.raises(ConfigError, match=r"method\.rank=0"):
        freeze(define(["sweep=wrong"], [str(tmp_path)]), [str(tmp_path)], lambda _: None)
