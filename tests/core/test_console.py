"""Text on a terminal: control characters are escaped, missing letters replaced, and lines fit the width."""

from __future__ import annotations

import io
import sys

import pytest

from sdsbench.core.console import fitted, print_table, print_wrapped, printing_text, rich_console, terminal_text
from sdsbench.core.progress import Progress
from sdsbench.core.record import score_text
from sdsbench.core.texts import number_of


@pytest.mark.parametrize(
    ("data", "shown"),
    [
        ("plain ± 2\n\tü", "plain ± 2\n\tü"),
        ("a\x1b[2Jb\rc", "a\\x1b[2Jb\\rc"),
        ("\x9b31m", "\\x9b31m"),
        ("a\u202etxt.exe", "a\\u202etxt.exe"),
        ("\ud800", "\\ud800"),
        ("[/red] index [a]", "[/red] index [a]"),
    ],
)
def test_control_characters_are_escaped(data: str, shown: str) -> None:
    assert terminal_text(data) == shown
    assert terminal_text(shown) == shown, "escaping twice changes nothing more"


def test_printed_text_is_escaped_inside_the_context(capsys: pytest.CaptureFixture[str]) -> None:
    with printing_text():
        print("\x1b]0;title\x07", "row")
        sys.stdout.writelines(["a\r\n", "b\n"])
    print("\x1b[0m")  # outside of the context nothing is escaped
    assert capsys.readouterr().out == "\\x1b]0;title\\x07 row\na\\r\nb\n\x1b[0m\n"


def test_letter_that_ascii_lacks_becomes_a_question_mark(monkeypatch: pytest.MonkeyPatch) -> None:
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding="ascii"))
    with printing_text():
        print("27.3 ± 2.6")
        sys.stdout.flush()
    assert raw.getvalue() == b"27.3 ? 2.6\n"


def test_rich_prints_brackets_and_emoji_codes_literally(capsys: pytest.CaptureFixture[str]) -> None:
    with printing_text():
        rich_console(width=60).print("index [a] out of [/red] bounds :smile:")
    assert capsys.readouterr().out == "index [a] out of [/red] bounds :smile:\n"


@pytest.mark.parametrize("stage", ["train", "evaluate commonsense/social_i_qa_with_a_long_name (best_epoch)"])
def test_progress_fits_a_terminal_of_80_columns(stage: str, terminal: None, capsys: pytest.CaptureFixture[str]) -> None:
    with Progress(stage, 1000) as progress:
        progress.advance(1000, "loss 12.3456  lr 1.0e-03  123,456 tokens/s")
    text = capsys.readouterr().err
    lines = [line for line in text.replace("\r", "\n").split("\n") if "1000" in line]
    plain = [line.replace("\x1b[2K", "").replace("\x1b[1A", "") for line in lines]
    assert any("1000/1000" in line and stage[:5] in line for line in plain)
    assert max(map(len, plain)) <= 80
    assert "\x1b[3" not in text, "NO_COLOR"


def test_progress_without_a_terminal_is_one_line_at_start_and_end(capsys: pytest.CaptureFixture[str]) -> None:
    with Progress("evaluate gsm8k", 3) as progress:
        for _ in range(3):
            progress.advance(0)
            progress.advance(1)
    lines = capsys.readouterr().err.splitlines()
    assert [" ".join(line.split()[:3]) for line in lines] == ["evaluate gsm8k 0/3", "evaluate gsm8k 3/3"]


@pytest.mark.parametrize(
    ("width", "line"),
    [
        (40, "4031c7e0  method=lora seed=0  gsm8k 27.3"),
        (39, "4031c7e0  method=lora seed…  gsm8k 27.3"),
        (30, "4031c7e0  method=…  gsm8k 27.3"),
        (18, "4031c7e0  gsm8k 2…"),
        (5, "4031c7e0"),
    ],
)
def test_parts_of_a_line_are_shortened_in_the_given_order(width: int, line: str) -> None:
    assert fitted(["4031c7e0", "", "method=lora seed=0", "gsm8k 27.3"], (2, 3), width) == line


def test_wide_letters_count_as_two_columns() -> None:
    assert fitted(["data=日本語", "0:01"], (0,), 14) == "data=日…  0:01"


SENTENCE = (
    "  with 200 questions it finds (80 % power) differences of 12.3 points if seeds spread by 1 point, of 14 if by 3"
)


def test_sentence_is_wrapped_between_words_on_a_terminal(terminal: None, capsys: pytest.CaptureFixture[str]) -> None:
    print_wrapped(f"{SENTENCE}\n\nreport: {'/long' * 20}")
    first, second, empty, report, path = capsys.readouterr().out.splitlines()
    assert len(first) <= 80 and f"{first} {second.removeprefix(' ' * 4)}" == SENTENCE and empty == ""
    assert (report, path) == ("report:", "  " + "/long" * 20), "a path stays whole"


def test_sentence_is_one_line_without_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    print_wrapped(SENTENCE)
    assert capsys.readouterr().out == SENTENCE + "\n"


def test_finished_bar_states_no_time_left(capsys: pytest.CaptureFixture[str]) -> None:
    """The seconds of later stages count only while the stage runs."""
    with Progress("train", 2, after=75.0) as progress:
        progress.advance(1)
        progress._show("")
        progress.advance(1)
    lines = capsys.readouterr().err.splitlines()
    assert lines[-2].endswith(" left") and lines[-1].startswith("train 2/2 ") and "left" not in lines[-1]


def test_table_without_a_terminal_keeps_each_row_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(("run", "what"), [("a", "long " * 100), ("b", "short")])
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["run", "a", "b"]


@pytest.mark.parametrize(("count", "text"), [(0, "0 runs"), (1, "1 run"), (2, "2 runs")])
def test_count_agrees_with_its_noun(count: int, text: str) -> None:
    assert number_of(count, "run") == text


@pytest.mark.parametrize(("value", "text"), [(3.0712, "3.0712"), (5010.3404, "5010.3"), (1461.8458, "1461.8")])
def test_large_numbers_are_shown_with_one_decimal(value: float, text: str) -> None:
    assert score_text(value, "number") == text
