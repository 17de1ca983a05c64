"""What the report says before it shows anything, and the figures that it rests on."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from sdsbench.core.record import Seconds
from sdsbench.methods.base import METHODS
from sdsbench.results.figure_style import Palette
from sdsbench.results.report import plots
from sdsbench.results.report.boards import Board, boards
from sdsbench.results.report.conclusion import conclusion
from sdsbench.results.report.curves import curves
from sdsbench.results.report.report_folder import build
from sdsbench.results.report.run_page import run_page
from sdsbench.results.tables.footer import rules_of
from sdsbench.results.tables.loaded_runs import load
from sdsbench.results.tables.titles import _own
from tests.results.tables.fixtures import make_record, make_samples, tuned, write_run

SCORES = {
    "lora": (0.50, 0.52, 0.51),
    "dora": (0.51, 0.50, 0.53),
    "pissa": (0.21, 0.20, 0.22),
    "sds_lora": (0.71, 0.70, 0.72),
    "rslora": (0.50, 0.51),
}


def board_of(root: Path, scores: dict[str, tuple[float, ...]] = SCORES, reference: str = "lora") -> Board:
    for method, values in scores.items():
        for seed, value in enumerate(values):
            write_run(root, make_record(method, seed, {"gsm8k": value}))
    return boards(load(root)[0], reference=reference)[0]


def test_a_sentence_answers_each_task(tmp_path: Path) -> None:
    text = conclusion(board_of(tmp_path))
    assert text.startswith("DoRA, r 8 cannot be told from LoRA, r 8 at 3 seeds; PiSSA, r 8 is worse by 30.0 [")
    assert "SDS-LoRA, r 8 is better by 20.0 [" in text
    assert text.endswith("not tested: rsLoRA, r 8 (fewer than 3 seeds).")


def test_without_a_reference_it_says_so(tmp_path: Path) -> None:
    text = conclusion(board_of(tmp_path, reference="lora_xs"))
    alike = "SDS-LoRA, r 8 and rsLoRA, r 8 cannot be told from the best"
    assert text == f"There is no run of LoRA-XS to compare with; {alike}."
    one = conclusion(board_of(tmp_path / "one", {"lora": (0.5,)}))
    assert one == "LoRA, r 8 alone has a score."


def texts_of(figure: object) -> list[str]:
    (axes,) = figure.axes  # type: ignore[attr-defined]
    return [text.get_text() for text in (*axes.texts, *axes.get_yticklabels())]


def test_the_forest_shows_every_difference_and_marks_what_leaves_it(tmp_path: Path) -> None:
    board = board_of(tmp_path, {**SCORES, "dora": (0.1, 0.9, 0.5)})
    figure = plots.forest(board)
    assert figure is not None
    assert {"PiSSA, r 8", "DoRA, r 8", "not tested"} <= set(texts_of(figure))
    (axes,) = figure.axes
    arrows = [line.get_marker() for line in axes.lines if line.get_marker() in ("<", ">") and not line.get_clip_on()]
    assert arrows == ["<", ">"], "only DoRA's interval is wider than the axis"
    assert "GSM8K" in axes.get_xlabel() and "difference to LoRA" in axes.get_xlabel()


@pytest.fixture
def plugin(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A method of a plugin, which calls itself otherwise than its name."""
    monkeypatch.setattr(METHODS, "_values", dict(METHODS._values))
    parent, config = METHODS.lookup("lora")
    titled = type("Titled", (parent,), {"title": "A New LoRA", "__module__": "elsewhere"})
    METHODS.register("titled_plugin", (titled, config))
    yield "titled_plugin"
    _own.cache_clear()


def test_a_plugin_s_title_stands_in_every_figure_and_table(tmp_path: Path, plugin: str) -> None:
    board = board_of(tmp_path, {"lora": (0.50, 0.52, 0.51), plugin: (0.71, 0.70, 0.72)})
    forest = plots.forest(board)
    assert forest is not None and "A New LoRA, r 8" in texts_of(forest)
    for seed in range(3):
        for lr in (1e-3, 1e-2):
            write_run(tmp_path, make_record(plugin, seed, {"gsm8k": 0.5 + lr}, lr=lr))
    rates = plots.learning_rates(boards(load(tmp_path)[0])[0])
    assert rates is not None
    assert "A New LoRA, r 8" in [text.get_text() for text in rates.axes[0].get_legend().texts]
    assert "A New LoRA, r 8 is better by 20.0 [" in conclusion(board)
    own = Palette([]).style("lora")
    assert Palette([plugin]).style("lora") == own and Palette([plugin]).style(plugin)["color"] != own["color"]


def test_a_constant_cost_has_no_figure(tmp_path: Path) -> None:
    board = board_of(tmp_path)
    assert plots.pareto(board, "train_seconds", "training, seconds") is None
    for seed in range(3):
        write_run(tmp_path, make_record("full_ft", seed, {"gsm8k": 0.5 + 0.01 * seed}, rank=None))
    figure = plots.pareto(boards(load(tmp_path)[0])[0], "trainable", "trainable parameters")
    assert figure is not None and "GSM8K" in figure.axes[0].get_ylabel()


def cost_figure(root: Path) -> object:
    return plots.pareto(boards(load(root)[0])[0], "train_seconds", "training, seconds")


def test_a_score_against_a_cost_has_both_spreads(tmp_path: Path) -> None:
    """The interval of the mean score, and from the cheapest to the dearest run."""
    for method, seconds in (("lora", 10.0), ("dora", 30.0)):
        for seed in range(3):
            spent = Seconds(train=seconds + seed)
            write_run(tmp_path, make_record(method, seed, {"gsm8k": 0.5 + 0.01 * seed}, seconds=spent))
    figure = cost_figure(tmp_path)
    (axes,) = figure.axes  # type: ignore[attr-defined]
    upright = [line.get_ydata() for line in axes.lines if list(line.get_xdata()) in ([11.0, 11.0], [31.0, 31.0])]
    assert len(upright) == 2 and all(low < 51.0 < high for low, high in upright)
    across = [list(part[:, 0]) for bars in axes.containers for part in bars[2][0].get_segments()]
    assert across == [[10.0, 12.0], [30.0, 32.0]] and "GSM8K" in axes.get_ylabel()


@pytest.mark.parametrize("within_a_cell", [True, False])
def test_times_of_two_machines_are_in_no_figure(tmp_path: Path, within_a_cell: bool) -> None:
    """Neither as the mean of a method's runs, nor as one method on one machine against another on the other."""
    for method, seconds in (("lora", 10.0), ("dora", 30.0), ("pissa", 20.0)):
        for seed in range(3):
            slow = seed == 2 if within_a_cell else method == "dora"
            device = "cpu: slow" if slow and method != "pissa" else "cpu: fast"
            record = make_record(
                method, seed, {"gsm8k": 0.5 + 0.01 * seed}, seconds=Seconds(train=seconds), device=device
            )
            write_run(tmp_path, record)
    assert cost_figure(tmp_path) is None


def test_one_curve_a_method_and_variant_with_the_chosen_rate(tmp_path: Path) -> None:
    for variant in ("sds", "flat_lora"):
        for lr, score in ((1e-3, 0.2), (1e-2, 0.5), (1e-1, 0.1)):
            config = {
                "method": {"name": "sds_lora", "rank": 8, "variant": variant},
                "eval": {"split": "validation"},
                "train": {"lr": lr, "epochs": 1.0, "batch_size": 8, "optimizer": "adamw"},
            }
            write_run(tmp_path, make_record("sds_lora", 9, {"gsm8k": score}, lr=lr, stage="validation", config=config))
        config = {
            "method": {"name": "sds_lora", "rank": 8, "variant": variant},
            "eval": {"split": "test"},
            "train": {"lr": 1e-2, "epochs": 1.0, "batch_size": 8, "optimizer": "adamw"},
        }
        chosen = tuned(1e-2, [1e-3, 1e-2, 1e-1], seeds=[9])
        write_run(tmp_path, make_record("sds_lora", 0, {"gsm8k": 0.4}, lr=1e-2, tuning=chosen, config=config))
    (board,) = boards(load(tmp_path)[0])
    found = curves(board.column, board.tried)
    assert [curve.title for curve in found] == [
        "LoRA with flat spectrum, r 8", "SDS-LoRA, r 8",
    ]  # fmt: skip
    for curve in found:
        assert list(curve.scores) == [1e-3, 1e-2, 1e-1] and curve.validation
        assert curve.tuning is not None and curve.tuning.chosen == 1e-2
    alone = curves(board.column, [run for run in board.tried if run.record.tuning])
    assert [list(curve.scores.values()) for curve in alone] == [[[50.0], [60.0], [50.0]]] * 2, "from the records"
    figure = plots.learning_rates(board)
    assert figure is not None
    (axes,) = figure.axes
    assert axes.get_xlabel() == "learning rate (ringed: chosen, 3 runs a method)"
    assert [text.get_text() for text in axes.get_legend().texts] == [curve.title for curve in found]


def test_a_row_looks_the_same_in_every_figure(tmp_path: Path) -> None:
    """LoRA of ranks 8 and 16 had changed places between the curves and all other figures."""
    for rank in (8, 16):
        for seed in range(2):
            for variant in ("sds", "flat_lora"):
                config = {"method": {"name": "sds_lora", "rank": rank, "variant": variant}}
                chosen = tuned(1e-2, [1e-3, 1e-2, 1e-1], seeds=[9])
                record = make_record("sds_lora", seed, {"gsm8k": 0.4}, rank=rank, tuning=chosen, config=config, lr=1e-2)
                write_run(tmp_path, record)
    (board,) = boards(load(tmp_path)[0])
    figure = plots.learning_rates(board)
    assert figure is not None
    lines = {str(line.get_label()): line for line in figure.axes[0].lines}
    assert len(lines) == len(board.rows) == 4
    for row in board.rows:
        style, line = board.style(row), lines[row.title]
        assert line.get_color() == style["color"], row.title
        assert line.get_markerfacecolor() == style["markerfacecolor"], row.title
    assert [board.variant(row) // 2 for row in board.rows if row.title.endswith("r 16")] == [1, 1], "by rank"


def test_a_rate_at_the_end_of_its_grid_is_told_on_the_figure(tmp_path: Path) -> None:
    for seed in range(3):
        chosen = tuned(1e-2, [1e-3, 1e-2], seeds=[9])
        write_run(tmp_path, make_record("lora", seed, {"gsm8k": 0.4}, lr=1e-2, tuning=chosen))
    figure = plots.learning_rates(boards(load(tmp_path)[0])[0])
    assert figure is not None
    assert [text.get_text() for text in figure.axes[0].get_legend().texts] == ["LoRA, r 8 (end of its grid)"]


def test_runs_that_did_not_learn_are_listed(tmp_path: Path) -> None:
    board = board_of(tmp_path / "runs", {"lora": (0.5, 0.52, 0.0), "dora": (0.4, 0.41, 0.42)})
    (failed,) = [run for run in board.tried if run.record.scores[0].value == 0.0]
    page = build(tmp_path / "out", load(tmp_path / "runs")[0], {}).read_text()
    part = page[page.index("<h3>Runs that did not learn</h3>") :].partition("</ul>")[0]
    assert part.count("<li>") == 1 and f'LoRA, r 8, <a href="runs/{failed.id}.html">' in part
    assert "not above its floor (no right answer, 0.00)" in part and "‡1" in page


def test_two_scores_of_the_same_runs(tmp_path: Path) -> None:
    """What was learned against what was kept; parts of one mean are one score."""
    for method, first, second in (("lora", 0.4, 0.6), ("dora", 0.5, 0.5), ("pissa", 0.3, 0.4)):
        for seed in range(3):
            scores = {"gsm8k": first + 0.01 * seed, "kept": second - 0.01 * seed}
            record = make_record(method, seed, scores)
            before = record.scores[1].model_copy(update={"stage": "untrained", "value": 0.7})
            write_run(tmp_path, record.model_copy(update={"scores": [*record.scores, before]}))
    found = boards(load(tmp_path)[0])
    figure = plots.two_scores(*found)
    assert figure is not None
    (axes,) = figure.axes
    frontier = next(line for line in axes.lines if line.get_linewidth() == 0.8)
    assert list(frontier.get_xdata()) == pytest.approx([41.0, 51.0]), "PiSSA is behind both"
    bars = [(list(line.get_xdata()), list(line.get_ydata())) for line in axes.lines]
    upright = [y for x, y in bars if x == pytest.approx([51.0, 51.0])]
    across = [x for x, y in bars if y == pytest.approx([49.0, 49.0])]
    assert any(low < 49.0 < high for low, high in upright), "DoRA's interval of what it kept"
    assert any(low < 51.0 < high for low, high in across), "and of what it learned"
    assert any(list(line.get_ydata()) == [70.0, 70.0] for line in axes.lines), "the model before training"
    page = build(tmp_path / "out", load(tmp_path)[0], {}).read_text()
    assert "Two scores of the same runs" in page and (tmp_path / "out/figures/board1_board2.svg").is_file()


def test_the_page_begins_with_the_answers(tmp_path: Path) -> None:
    board_of(tmp_path / "runs")
    page = build(tmp_path / "out", load(tmp_path / "runs")[0], {}).read_text()
    places = [page.index(words) for words in ("is worse by", 'board1_forest.png"', "<table>", "board1_seeds.png")]
    assert places == sorted(places)
    row = page[page.index('<th scope="row">PiSSA, r 8</th>') :].partition("</tr>")[0]
    assert row.count('href="runs/') == 3, "the links to a row's runs stand once"
    assert "prefers-color-scheme: dark" in (tmp_path / "out/style.css").read_text()
    assert page.count("<svg ") == sum(page.count(f'<svg role="{role}" aria-label=') for role in ("group", "img"))


def test_many_runs_of_a_row_are_linked_on_request(tmp_path: Path) -> None:
    """Sixty links made each row many screens wide."""
    scores = {"lora": tuple(0.5 + 0.01 * seed for seed in range(12)), "dora": tuple(0.3 + 0.01 * s for s in range(13))}
    board_of(tmp_path / "runs", scores)
    page = build(tmp_path / "out", load(tmp_path / "runs")[0], {}).read_text()
    cells = {
        title: page[page.index(f'<th scope="row">{title}</th>') :].partition("</tr>")[0]
        for title in ("LoRA, r 8", "DoRA, r 8")
    }
    assert "<details>" not in cells["LoRA, r 8"] and cells["LoRA, r 8"].count("<a ") == 12
    assert "<summary>13 runs</summary>" in cells["DoRA, r 8"] and cells["DoRA, r 8"].count("<a ") == 13


def test_a_legend_covers_no_text_of_its_axis(tmp_path: Path) -> None:
    """With more than six rates their numbers are turned and the axis' name moves down: it lay below the legend."""
    for number in range(8):
        lr = 1e-3 * 1.8**number
        write_run(tmp_path, make_record("lora", 0, {"gsm8k": 0.4}, lr=lr))
        write_run(tmp_path, make_record("dora", 0, {"gsm8k": 0.5}, lr=lr))
    figure = plots.learning_rates(boards(load(tmp_path)[0])[0])
    assert figure is not None
    figure.canvas.draw()
    (axes,) = figure.axes
    assert axes.get_legend().get_window_extent().y1 <= axes.xaxis.label.get_window_extent().y0


def test_disputed_questions_carry_no_test(runs_of_two: Path) -> None:
    """One run of each, of one seed, had a p-value beside the table's tests over seeds, and could say the opposite."""
    page = build(runs_of_two / "out", load(runs_of_two / "runs")[0], {}).read_text()
    part = page[page.index("and another method disagree</h3>") :].partition("</table>")[0]
    assert "One run of each, of one seed" in part and "only the other right" in part
    assert "mid-p" not in page and part.count("<td>") == 5


def test_in_the_dark_methods_keep_their_colours(tmp_path: Path) -> None:
    """Inverted colours made three dark ones white."""
    board_of(tmp_path / "runs", {"lora": (0.5, 0.6)})
    build(tmp_path / "out", load(tmp_path / "runs")[0], {})
    assert "filter" not in (tmp_path / "out/style.css").read_text()


@pytest.fixture
def runs_of_two(tmp_path: Path) -> Path:
    for method, right in (("lora", [True, False, True]), ("dora", [False, False, True])):
        record = make_record(method, 0, {"gsm8k": sum(right) / 3}, n=3)
        write_run(tmp_path / "runs", record, {"gsm8k": make_samples(right)})
    return tmp_path


def test_names_of_others_end_no_report(tmp_path: Path) -> None:
    """A method called `$\\foo{$` was read as a formula and ended the whole report in a traceback."""
    names = ["$\\foo{$", "<script>alert(1)</script>", "_hidden", "lora"]
    for number, name in enumerate(names):
        for seed in range(3):
            score = {"gsm8k": 0.3 + 0.1 * number + 0.01 * seed}
            steps = [{"kind": "train", "step": step, "loss": 1 / step} for step in (1, 2, 3)]
            record = make_record(name, seed, score, model="$m$ <b>")
            write_run(tmp_path / "runs", record, {"gsm8k": make_samples([True, False])}, steps)
    page = build(tmp_path / "out", load(tmp_path / "runs")[0], {}).read_text()
    assert "<script>" not in page and "&lt;script&gt;alert(1)&lt;/script&gt;, r 8" in page
    assert "$\\foo{$, r 8</text>" in page, "in the figures too"


def test_a_run_shows_its_tuning_its_inert_keys_and_its_answers(tmp_path: Path) -> None:
    chosen = tuned(1e-2, [1e-3, 1e-2], seeds=[9])
    record = make_record("lora", 0, {"gsm8k": 0.5}, lr=1e-2, tuning=chosen)
    record = record.model_copy(update={"inert": ["train.epochs"]})
    folder = write_run(tmp_path / "runs", record, {"gsm8k": make_samples([True, False])})
    runs, _ = load(tmp_path / "runs")
    shown = run_page(runs[0])
    assert shown["tuning"]["rows"] == [(1e-3, "50.00", None, False), (1e-2, "60.00", None, True)]
    assert not shown["tuning"]["interior"]
    (rule,) = rules_of([chosen])
    assert shown["tuning"]["rule"] == rule, "in the words of the tables' footer"
    (answers,) = shown["answers"]
    assert [row["verdicts"] for row in answers.rows] == [[("flexible", "right")], [("flexible", "wrong")]]
    build(tmp_path / "out", runs, {})
    text = (tmp_path / "out" / "runs" / f"{folder.name}.html").read_text()
    assert "at the end of its grid" in text and "1.0 (without effect here)" in text
    assert '<span class="verdict wrong">wrong</span> by flexible' in text
