"""How a value is tuned: its default seeds, a grid that grows until the best lies inside, loss beside the score."""

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


def test_a_sweep_that_names_no_tuning_seed_has_several(tmp_path: Path) -> None:
    tune = define(["sweep=s"], sweep_file(tmp_path)).tune
    assert tune is not None and tuple(tune.seeds) == TUNING_SEEDS and len(TUNING_SEEDS) > 1 and tune.extend == 0
    tune = define(["sweep=s"], sweep_file(tmp_path, seeds=[7], extend=2)).tune
    assert tune is not None and tune.seeds == [7] and tune.extend == 2


@pytest.mark.parametrize(
    "tune, words", [({"extend": -1}, "tune.extend=-1"), ({"extend": 1, "grid": [0.0, 1.0]}, "tune.grid")]
)
def test_what_cannot_be_extended_is_refused(tmp_path: Path, tune: dict, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        define(["sweep=s"], sweep_file(tmp_path, **tune))


def test_a_grid_is_extended_by_its_own_factor() -> None:
    assert extended([3e-3, 1e-3, 1e-2], 0) == [3e-3, 1e-3, 1e-2]
    assert extended([1e-2, 1e-3, 1e-4], 2) == [1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 0.1, 1.0]
    assert extended([2.5e-4, 1e-3, 2e-3], 1) == [6.25e-5, 2.5e-4, 1e-3, 2e-3, 4e-3]


FINAL = f"{'c' * 12}:0"
GRID = [1e-5, 1e-4, 1e-3, 1e-2, 1e-1]  # declared: the three in the middle


def name_of(position: int, seed: int) -> str:
    """Sixteen digits, as a run's name has."""
    return f"{position:08x}{seed:08x}"


def cell(extend: int = 1) -> TunedCell:
    names = [[name_of(position, seed) for seed in (100, 101)] for position in range(len(GRID))]
    final = {"0": [name_of(position, 0) for position in range(len(GRID))]}
    return TunedCell(point={}, key="train.lr", grid=GRID, seeds=[100, 101], tuning=names, final=final, extend=extend)


def records(scores: dict[int, float | None], losses: dict[int, float] | None = None) -> dict[str, Record]:
    """Both seeds of every position with a score; None: the runs failed."""
    found = {}
    for position, score in scores.items():
        for seed in (100, 101):
            status = "failed" if score is None else "done"
            shown = None if score is None else {"gsm8k": score}
            record = make_record("lora", seed, shown, stage="validation", status=status, config=HELD_BACK)
            if losses and position in losses and status == "done":
                record.losses = Losses(first=2.0, last=1.0, tail_mean=1.0, steps=3, validation=losses[position])
            found[name_of(position, seed)] = record
    return found


@pytest.mark.parametrize(
    "scores, tried, chosen",
    [
        ({1: 0.1, 2: 0.3, 3: 0.2}, range(1, 4), 2),  # inside at once
        ({1: 0.1, 2: 0.2, 3: 0.3}, range(1, 5), None),  # the last is best: one more is wanted
        ({1: 0.1, 2: 0.2, 3: 0.3, 4: 0.2}, range(1, 5), 3),
        ({1: 0.1, 2: 0.2, 3: 0.3, 4: 0.4}, range(1, 5), 4),  # the best is last again, and nothing is left to try
        ({1: 0.1, 2: 0.2, 3: 0.3, 4: None}, range(1, 5), 3),  # beyond it every run fails
        ({0: 0.1, 1: 0.3, 2: 0.2, 3: 0.1}, range(0, 4), 1),
        ({1: 0.1, 2: 0.2}, range(1, 4), None),  # declared runs are missing
    ],
)
def test_the_grid_grows_until_the_best_lies_inside(scores: dict, tried: range, chosen: int | None) -> None:
    have = records(scores)
    assert window(cell(), have.get) == tried
    choice = choose(cell(), have.get)
    assert (choice and choice.position) == chosen
    if choice is not None and choice.tuning is not None:
        assert choice.tuning.grid == [GRID[position] for position in tried]
        assert choice.tuning.declared == GRID[1:4] and choice.tuning.extend == 1
        assert choice.tuning.budget == 2 * len(tried)
        assert choice.tuning.interior == (chosen not in (tried[0], tried[-1]))


@pytest.mark.parametrize(("better", "chosen"), [("lower", 1e-4), ("higher", 1e-5)])
def test_the_best_score_is_the_lowest_of_a_loss(better: str, chosen: float) -> None:
    have = records({0: 3.0, 1: 1.0, 2: 2.0, 3: 2.5, 4: 2.7})
    for name, record in have.items():
        score = record.scores[0].model_copy(update={"better": better, "unit": "number"})
        other = "higher" if better == "lower" else "lower"
        beside = score.model_copy(update={"evaluation": "text", "retention": True, "value": 9.0, "better": other})
        have[name] = record.model_copy(update={"scores": [score, beside]})
    choice = choose(cell(extend=0), have.get)
    assert choice is not None and choice.tuning is not None
    assert choice.tuning.chosen == chosen and choice.tuning.scores == [3.0, 1.0, 2.0, 2.5, 2.7], (
        "second scores choose nothing"
    )


def test_without_extend_a_best_last_value_stays(tmp_path: Path) -> None:
    plain = cell(0)
    have = records({0: 0.1, 1: 0.1, 2: 0.1, 3: 0.2, 4: 0.3})
    choice = choose(plain, have.get)
    assert choice is not None and choice.position == 4 and choice.tuning is not None
    assert choice.tuning.declared is None and not choice.tuning.interior


@pytest.mark.parametrize(
    "scores, losses, chosen, by",
    [
        ({1: 0.3, 2: 0.3, 3: 0.3}, {1: 0.7, 2: 0.5, 3: 0.9}, 2, "loss"),
        ({1: 0.2, 2: 0.3, 3: 0.3}, {1: 0.1, 2: 0.5, 3: 0.4}, 3, "loss"),  # a lower loss of a lower score is no tie
        ({1: 0.3, 2: 0.3, 3: 0.3}, {1: 0.5, 2: 0.5, 3: 0.5}, 1, "value"),
        ({1: 0.3, 2: 0.3, 3: 0.3}, None, 1, "value"),
        ({1: 0.3, 2: 0.3, 3: 0.3}, {2: 0.5, 3: 0.4}, 1, "value"),  # one of them has no loss: none counts
        ({1: 0.1, 2: 0.3, 3: 0.2}, {1: 0.5, 2: 0.9, 3: 0.4}, 2, ""),
    ],
)
def test_of_equal_scores_the_lowest_validation_loss_wins_then_the_smallest_value(
    scores: dict, losses: dict | None, chosen: int, by: str
) -> None:
    have = records({0: 0.0, 4: 0.0, **scores}, None if losses is None else {0: 0.1, 4: 0.1, **losses})
    choice = choose(cell(extend=0), have.get)
    assert choice is not None and choice.tuning is not None and choice.position == chosen
    assert choice.tuning.tie_broken_by == by


def test_means_that_differ_in_their_last_bit_are_equal_scores() -> None:
    """Three seeds with the same right answers in another order: 0.6 / 3 is not (0.3 + 0.2 + 0.1) / 3 to the bit."""
    assert sum([0.1, 0.2, 0.3]) != sum([0.3, 0.2, 0.1])
    tuning = tuned(1e-3, [1e-4, 1e-3], losses=[0.9, 0.4])
    tuning.scores = [sum([0.1, 0.2, 0.3]) / 3, sum([0.3, 0.2, 0.1]) / 3]
    assert tuning.tie_broken_by == "loss"


def test_a_grid_grows_towards_the_lower_loss_where_every_score_is_the_same() -> None:
    """Rates that all answer nothing: the smallest is no better than the others, and the grid does not grow there."""
    have = records({1: 0.0, 2: 0.0, 3: 0.0}, {1: 0.9, 2: 0.7, 3: 0.5})
    assert window(cell(), have.get) == range(1, 5)
    assert window(cell(), records({1: 0.0, 2: 0.0, 3: 0.0}).get) == range(0, 4)


def test_the_validation_loss_stands_beside_the_score() -> None:
    scores, losses = {1: 0.1, 2: 0.3, 3: 0.2}, {1: 0.5, 2: 0.9, 3: 0.4}
    choice = choose(cell(), records(scores, losses).get)
    assert choice is not None and choice.tuning is not None and choice.position == 2
    assert choice.tuning.losses == [0.5, 0.9, 0.4]
    assert (choice.tuning.seeds, choice.tuning.key) == ([100, 101], "train.lr")
    lost = records(scores, losses)
    for record in lost.values():
        record.losses = None
    chosen = choose(cell(), lost.get)
    assert chosen is not None and chosen.tuning is not None and chosen.tuning.losses is None
    without = choose(cell(), records(scores).get)
    assert without is not None and without.tuning is not None and without.tuning.losses is None


def test_slots_beyond_the_declared_grid_wait_and_are_made_only_where_they_are_needed(tmp_path: Path) -> None:
    tuned = cell()
    runs = {name: PlannedRun(role="tuning", point={}, sha256="0") for row in tuned.tuning for name in row}
    runs |= {name: PlannedRun(role="final", point={}, sha256="0") for name in tuned.final["0"]}
    manifest = Manifest(name="p", description="", git_commit=None, placing={}, runs=runs, cells={"c" * 12: tuned})
    plan = Plan(tmp_path, manifest)

    def states(scores: dict[int, float | None]) -> dict[str, str]:
        for name, record in records(scores).items():
            (tmp_path / name).mkdir(exist_ok=True)
            write_run(tmp_path, record.model_copy(update={"run_id": name}))
        found = States(plan, tmp_path)
        return {slot.key: found.of(slot).state for slot in plan.slots() if slot.extends or slot.cell}

    low, high = ([name_of(position, seed) for seed in (100, 101)] for position in (0, 4))
    assert states({1: 0.1}) == dict.fromkeys((*low, *high, FINAL), "waiting")
    assert states({2: 0.2, 3: 0.3}) == {
        **dict.fromkeys(low, "waiting"), **dict.fromkeys(high, "not started"), FINAL: "waiting",
    }  # fmt: skip
    assert states({4: 0.1}) == {
        **dict.fromkeys(low, "unneeded"), **dict.fromkeys(high, "done"), FINAL: "not started",
    }  # fmt: skip


def test_a_problem_of_every_run_of_a_tuned_cell_is_one_message(tmp_path: Path) -> None:
    """No cell is made of runs that could not be composed."""
    (tmp_path / "sweep").mkdir()
    (tmp_path / "sweep/wrong.yaml").write_text(
        "name: wrong\nblocks:\n  - fixed: [model=micro, data.source=embedded, method.rank=0]\n"
        "    axes: {method: [lora], seed: [0]}\ntune: {key: train.lr, grid: [1e-3, 1e-2], seeds: [100]}\n"
    )
    with pytest.raises(ConfigError, match=r"method\.rank=0"):
        freeze(define(["sweep=wrong"], [str(tmp_path)]), [str(tmp_path)], lambda _: None)
