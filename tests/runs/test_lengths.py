"""Rows that train.max_length cuts or drops are counted, logged and recorded; the end of the response is cut."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from sdsbench.core.record import Lengths
from sdsbench.models.location import folder_of
from sdsbench.results.tables.build import build
from sdsbench.results.tables.definitions.grid import grid
from sdsbench.results.tables.runs import load
from sdsbench.runs import banner
from sdsbench.runs.configuration.compose import compose_run
from sdsbench.runs.execute import execute
from sdsbench.runs.run_context import RunContext
from sdsbench.tasks.base import TextExample, TextTaskConfig
from sdsbench.training.tokens import encode

RUN = [
    "model=micro", "method=lora", "data.source=embedded", "data.train_limit=24", "train.max_steps=1", "eval.limit=1",
    "eval.untrained=false", "task.max_new_tokens=2", "threads=1",
]  # fmt: skip


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(folder_of(compose_run(["model=micro"]).model)[0])


def test_end_of_the_response_is_cut_and_the_prompt_kept(tokenizer: Any) -> None:
    config = TextTaskConfig(name="", train_set="")
    example = TextExample("How many?", " There are seven of them.")
    whole = next(encode([example], tokenizer, 1000, config))
    assert not whole.cut and whole.ids[-1] == tokenizer.eos_token_id
    for length in (whole.length - 1, whole.first_target + 1):
        part = next(encode([example], tokenizer, length, config))
        assert part.cut and part.ids == whole.ids[:length] and part.first_target == whole.first_target
    assert not next(encode([example], tokenizer, whole.length, config)).cut


def recorded_lengths_and_banner(root: Path, *more: str) -> tuple[Lengths, str]:
    logged: list[str] = []
    record = execute(compose_run([*RUN, *more, f"output_root={root}"]), RunContext(log=logged.append))
    assert record.lengths is not None
    return record.lengths, next(text for text in logged if "expected" in text)


def test_cut_and_dropped_rows_are_in_banner_record_and_table_footer(tmp_path: Path) -> None:
    from sdsbench.runs.run_data import load_run
    from sdsbench.tasks import base

    config = compose_run(RUN)
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder_of(config.model)[0])
    examples = map(base.build(config.task).training_example, load_run(config).training)
    encoded = list(encode(examples, tokenizer, 10_000, config.task))  # type: ignore[arg-type]
    limit = sorted(example.first_target for example in encoded)[12]
    dropped = sum(example.first_target >= limit for example in encoded)
    cut = sum(example.length > limit for example in encoded) - dropped
    assert cut > 0 and dropped > 0, "the test needs rows of both kinds"

    lengths, banner = recorded_lengths_and_banner(tmp_path, f"train.max_length={limit}")
    assert (lengths.rows, lengths.cut, lengths.dropped, lengths.max_length) == (24, cut, dropped, limit)
    note = f"{cut} of 24 rows cut at train.max_length={limit}, {dropped} left out"
    assert f"WARNING: {note}" in banner
    runs, _ = load(tmp_path)
    assert runs[0].flat["lengths.cut"] == cut
    footer = build(grid(runs), runs).footer
    assert any(line.startswith(f"Lengths: micro on gsm8k: {note}") for line in footer)


def test_banner_does_not_mention_uncut_rows(tmp_path: Path) -> None:
    lengths, banner = recorded_lengths_and_banner(tmp_path)
    assert (lengths.cut, lengths.dropped) == (0, 0) and "cut" not in banner


@pytest.mark.parametrize(("cut", "dropped", "warned"), [(2, 0, False), (3, 0, True), (1, 2, True)])
def test_banner_warns_where_more_than_two_percent_of_rows_are_cut(cut: int, dropped: int, warned: bool) -> None:
    line = banner._lengths(Lengths(max_length=512, rows=100, cut=cut, dropped=dropped))["lengths"]
    assert ("WARNING" in line) == warned and f"{cut} of 100 rows cut" in line


def test_cut_sentences_of_classification_tasks_are_marked() -> None:
    from types import SimpleNamespace

    from transformers import AutoTokenizer

    from sdsbench.tasks.sentences import SentenceBatcher, SentenceExample

    tokenizer = AutoTokenizer.from_pretrained(folder_of(compose_run(["model=micro"]).model)[0])
    task = SimpleNamespace(training_example=lambda text: SentenceExample(text, None, 0.0))
    length = len(tokenizer("one two three four")["input_ids"])
    batcher = SentenceBatcher(task, tokenizer, length)  # type: ignore[arg-type]
    encoded = batcher.encode_all(["one two three four", "one two three four five six", "one"])
    assert [example.cut for example in encoded] == [False, True, False]
