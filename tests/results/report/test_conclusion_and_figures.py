"""The report's conclusion for each task, which opens the page, and the figures and tables that support it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from sdsbench.core.record import Failure, Seconds
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
from sdsbench.results.tables.trace import trace_run
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


def test_conclusion_states_each_methods_difference_to_the_reference(tmp_path: Path) -> None:
    text = conclusion(board_of(tmp_path))
    assert text.startswith("DoRA, r 8 cannot be told from LoRA, r 8 at 3 seeds; PiSSA, r 8 is worse by 30.0 [")
    assert "SDS-LoRA, r 8 is better by 20.0 [" in text
    assert text.endswith("not tested: rsLoRA, r 8 (fewer than 3 seeds).")


def test_conclusion_without_the_reference_says_so(tmp_path: Path) -> None:
    text = conclusion(board_of(tmp_path, reference="lora_xs"))
    alike = "SDS-LoRA, r 8 and rsLoRA, r 8 cannot be told from the best"
    assert text == f"There is no run of LoRA-XS to compare with; {alike}."
    one = conclusion(board_of(tmp_path / "one", {"lora": (0.5,)}))
    assert one == "LoRA, r 8 alone has a score."


def texts_of(figure: object) -> list[str]:
    (axes,) = figure.axes  # type: ignore[attr-defined]
    return [text.get_text() for text in (*axes.texts, *axes.get_yticklabels())]


def test_forest_plot_shows_every_difference_and_marks_cut_intervals(tmp_path: Path) -> None:
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
    """A plugin's method, whose title differs from its registered name."""
    monkeypatch.setattr(METHODS, "_values", dict(METHODS._values))
    parent, config = METHODS.lookup("lora")
    titled = type("Titled", (parent,), {"title": "A New LoRA", "__module__": "elsewhere"})
    METHODS.register("titled_plugin", (titled, config))
    yield "titled_plugin"
    _own.cache_clear()


def test_title_of_a_plugins_method_is_in_every_figure_and_sentence(tmp_path: Path, plugin: str) -> None:
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


def test_cost_figure_is_left_out_where_the_cost_is_constant(tmp_path: Path) -> None:
    board = board_of(tmp_path)
    assert plots.pareto(board, "train_seconds", "training, seconds") is None
    for seed in range(3):
        write_run(tmp_path, make_record("full_ft", seed, {"gsm8k": 0.5 + 0.01 * seed}, rank=None))
    figure = plots.pareto(boards(load(tmp_path)[0])[0], "trainable", "trainable parameters")
    assert figure is not None and "GSM8K" in figure.axes[0].get_ylabel()


def cost_figure(root: Path) -> object:
    return plots.pareto(boards(load(root)[0])[0], "train_seconds", "training, seconds")


def test_cost_figure_shows_the_spread_of_score_and_cost(tmp_path: Path) -> None:
    """The vertical bar is the interval of the mean score; the horizontal bar spans the cheapest to the dearest run."""
    for method, seconds in (("lora", 10.0), ("dora", 30.0)):
        for seed in range(3):
            spent = Seconds(train=seconds + seed)
            write_run(tmp_path, make_record(method, seed, {"gsm8k": 0.5 + 0.01 * seed}, seconds=spent))
    figure = cost_figure(tmp_path)
    (axes,) = figure.axes  # type: ignore[attr-defined]
    vertical = [line.get_ydata() for line in axes.lines if list(line.get_xdata()) in ([11.0, 11.0], [31.0, 31.0])]
    assert len(vertical) == 2 and all(low < 51.0 < high for low, high in vertical)
    horizontal = [list(part[:, 0]) for bars in axes.containers for part in bars[2][0].get_segments()]
    assert horizontal == [[10.0, 12.0], [30.0, 32.0]] and "GSM8K" in axes.get_ylabel()


@pytest.mark.parametrize("within_a_cell", [True, False])
def test_times_of_two_machines_give_no_cost_figure(tmp_path: Path, within_a_cell: bool) -> None:
    """This holds within one method's runs, and for methods that ran on different machines."""
    for method, seconds in (("lora", 10.0), ("dora", 30.0), ("pissa", 20.0)):
        for seed in range(3):
            slow = seed == 2 if within_a_cell else method == "dora"
            device = "cpu: slow" if slow and method != "pissa" else "cpu: fast"
            record = make_record(
                method, seed, {"gsm8k": 0.5 + 0.01 * seed}, seconds=Seconds(train=seconds), device=device
            )
            write_run(tmp_path, record)
    assert cost_figure(tmp_path) is None


def test_learning_rate_figure_has_one_curve_per_method_and_variant(tmp_path: Path) -> None:
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
    assert [list(curve.scores.values()) for curve in alone] == [[[50.0], [60.0], [50.0]]] * 2, (
        "from the records' tuning"
    )
    figure = plots.learning_rates(board)
    assert figure is not None
    (axes,) = figure.axes
    assert axes.get_xlabel() == "learning rate (ringed: chosen, 3 runs a method)"
    assert [text.get_text() for text in axes.get_legend().texts] == [curve.title for curve in found]


def test_row_has_the_same_style_in_every_figure(tmp_path: Path) -> None:
    """This also holds for ranks 8 and 16 of one method, between the learning-rate curves and the other figures."""
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
    assert [board.variant(row) // 2 for row in board.rows if row.title.endswith("r 16")] == [1, 1], (
        "variants are numbered by rank"
    )


def test_legend_names_a_rate_at_the_end_of_its_grid(tmp_path: Path) -> None:
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


def test_figure_of_two_scores_shows_intervals_and_the_frontier(tmp_path: Path) -> None:
    """One score of each method plotted against another, with the untrained model's second score as a line."""
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
    vertical = [y for x, y in bars if x == pytest.approx([51.0, 51.0])]
    horizontal = [x for x, y in bars if y == pytest.approx([49.0, 49.0])]
    assert any(low < 49.0 < high for low, high in vertical), "DoRA's interval of the second score"
    assert any(low < 51.0 < high for low, high in horizontal), "DoRA's interval of the first score"
    assert any(list(line.get_ydata()) == [70.0, 70.0] for line in axes.lines), "the model before training"
    page = build(tmp_path / "out", load(tmp_path)[0], {}).read_text()
    assert "Two scores of the same runs" in page and (tmp_path / "out/figures/board1_board2.svg").is_file()


def test_page_opens_with_the_conclusion_before_figures_and_tables(tmp_path: Path) -> None:
    board_of(tmp_path / "runs")
    page = build(tmp_path / "out", load(tmp_path / "runs")[0], {}).read_text()
    places = [page.index(words) for words in ("is worse by", 'board1_forest.png"', "<table>", "board1_seeds.png")]
    assert places == sorted(places)
    row = page[page.index('<th scope="row">PiSSA, r 8</th>') :].partition("</tr>")[0]
    assert row.count('href="runs/') == 3, "a row links each of its runs once"
    assert "prefers-color-scheme: dark" in (tmp_path / "out/style.css").read_text()
    assert page.count("<svg ") == sum(page.count(f'<svg role="{role}" aria-label=') for role in ("group", "img"))


def test_links_of_more_than_twelve_runs_are_folded(tmp_path: Path) -> None:
    """Many links would make a row many screens wide."""
    scores = {"lora": tuple(0.5 + 0.01 * seed for seed in range(12)), "dora": tuple(0.3 + 0.01 * s for s in range(13))}
    board_of(tmp_path / "runs", scores)
    page = build(tmp_path / "out", load(tmp_path / "runs")[0], {}).read_text()
    cells = {
        title: page[page.index(f'<th scope="row">{title}</th>') :].partition("</tr>")[0]
        for title in ("LoRA, r 8", "DoRA, r 8")
    }
    assert "<details>" not in cells["LoRA, r 8"] and cells["LoRA, r 8"].count("<a ") == 12
    assert "<summary>13 runs</summary>" in cells["DoRA, r 8"] and cells["DoRA, r 8"].count("<a ") == 13


def test_legend_lies_below_the_label_of_the_axis(tmp_path: Path) -> None:
    """With more than six rates, tick labels are rotated and move the axis label down; the legend must stay below."""
    for number in range(8):
        lr = 1e-3 * 1.8**number
        write_run(tmp_path, make_record("lora", 0, {"gsm8k": 0.4}, lr=lr))
        write_run(tmp_path, make_record("dora", 0, {"gsm8k": 0.5}, lr=lr))
    figure = plots.learning_rates(boards(load(tmp_path)[0])[0])
    assert figure is not None
    figure.canvas.draw()
    (axes,) = figure.axes
    assert axes.get_legend().get_window_extent().y1 <= axes.xaxis.label.get_window_extent().y0


def test_table_of_disputed_questions_has_no_p_value(runs_of_two: Path) -> None:
    """It compares one run of each method at one seed; a p-value there could contradict the table's tests over seeds."""
    page = build(runs_of_two / "out", load(runs_of_two / "runs")[0], {}).read_text()
    part = page[page.index("and another method disagree</h3>") :].partition("</table>")[0]
    assert "One run of each, of one seed" in part and "only the other right" in part
    assert "mid-p" not in page and part.count("<td>") == 5


def test_dark_page_keeps_the_colours_of_methods(tmp_path: Path) -> None:
    """A filter that inverts colours would turn dark lines white."""
    board_of(tmp_path / "runs", {"lora": (0.5, 0.6)})
    build(tmp_path / "out", load(tmp_path / "runs")[0], {})
    assert "filter" not in (tmp_path / "out/style.css").read_text()


@pytest.fixture
def runs_of_two(tmp_path: Path) -> Path:
    for method, right in (("lora", [True, False, True]), ("dora", [False, False, True])):
        record = make_record(method, 0, {"gsm8k": sum(right) / 3}, n=3)
        write_run(tmp_path / "runs", record, {"gsm8k": make_samples(right)})
    return tmp_path


def test_any_method_or_model_name_can_be_reported(tmp_path: Path) -> None:
    """A name such as `$\\foo{$` must not be parsed as a formula, nor markup in a name as HTML."""
    names = ["$\\foo{$", "<script>alert(1)</script>", "_hidden", "lora"]
    for number, name in enumerate(names):
        for seed in range(3):
            score = {"gsm8k": 0.3 + 0.1 * number + 0.01 * seed}
            steps = [{"kind": "train", "step": step, "loss": 1 / step} for step in (1, 2, 3)]
            record = make_record(name, seed, score, model="$m$ <b>")
            write_run(tmp_path / "runs", record, {"gsm8k": make_samples([True, False])}, steps)
    page = build(tmp_path / "out", load(tmp_path / "runs")[0], {}).read_text()
    assert "<script>" not in page and "&lt;script&gt;alert(1)&lt;/script&gt;, r 8" in page
    assert "$\\foo{$, r 8</text>" in page, "the figures show it as text"


@pytest.mark.parametrize("status", ["running", "failed"])
def test_failure_of_an_earlier_attempt_is_not_shown_while_the_run_goes_on(status: str, tmp_path: Path) -> None:
    record = make_record("lora", 0, status=status)
    record.failure = Failure(type="TrainingFailed", message="out of memory")
    write_run(tmp_path / "runs", record)
    (run,) = load(tmp_path / "runs")[0]
    assert ("failure" in dict(run_page(run)["facts"])) is ("out of memory" in trace_run(run)) is (status == "failed")


def test_run_page_shows_tuning_inert_keys_and_answers(tmp_path: Path) -> None:
    chosen = tuned(1e-2, [1e-3, 1e-2], seeds=[9])
    record = make_record("lora", 0, {"gsm8k": 0.5}, lr=1e-2, tuning=chosen)
    record = record.model_copy(update={"inert": ["train.epochs"]})
    folder = write_run(tmp_path / "runs", record, {"gsm8k": make_samples([True, False])})
    runs, _ = load(tmp_path / "runs")
    shown = run_page(runs[0])
    assert shown["tuning"]["rows"] == [(1e-3, "50.00", None, False), (1e-2, "60.00", None, True)]
    assert not shown["tuning"]["interior"]
    (rule,) = rules_of([chosen])
    assert shown["tuning"]["rule"] == rule, "the same words as in the tables' footer"
    (answers,) = shown["answers"]
    assert [row["verdicts"] for row in answers.rows] == [[("flexible", "right")], [("flexible", "wrong")]]
    build(tmp_path / "out", runs, {})
    text = (tmp_path / "out" / "runs" / f"{folder.name}.html").read_text()
    assert "at the end of its grid" in text and "1.0 (without effect here)" in text
    assert '<span class="verdict wrong">wrong</span> by flexible' in text
