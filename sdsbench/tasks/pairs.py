"""Own instruction data: any two columns of own files (data.train, data.test). A sample row:

    {"prompt": "Name the capital of Peru.", "response": "Lima"}

`task.prompt=question` and `task.response=answer` name other columns; `task.prompt="Q: {question}\\nA:"` is a template
of any columns. With `task.chat=true` the tokenizer's own chat template goes around the prompt; a column of messages

    {"messages": [{"role": "user", "content": "Name the capital of Peru."}, {"role": "assistant", "content": "Lima"}]}

is read with `task.prompt=messages task.response=null`: the last message is the response. Held-out responses always get
their loss and perplexity; `task.scorers` grade what the model generates (graders/pairs.py).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

from pydantic import Field

from sdsbench.core.errors import Problem
from sdsbench.data import catalogue
from sdsbench.data.catalogue import DataSet
from sdsbench.data.columns import TEXT, ColumnCheck
from sdsbench.data.own_files import fields
from sdsbench.tasks.base import (
    Choice,
    Conversation,
    Evaluation,
    Generation,
    HeldOut,
    Row,
    Scorer,
    Task,
    TextExample,
    TextTaskConfig,
    graded,
    register,
)
from sdsbench.tasks.graders import pairs as graders

catalogue.add(DataSet(name="pairs", columns=(), splits={"train": "train"}, own=True))

_SET = ("pairs", 1, "pairs", "test")  # name, version, data set, split
_ROLES = ("system", "user", "assistant")


class PairsConfig(TextTaskConfig):
    prompt: str = Field("prompt", description="column of the prompt, text with {COLUMN}s, or column of chat messages")
    response: str | None = Field(
        "response", description="column of the response; null: the last message of task.prompt"
    )
    chat: bool = Field(False, description="apply the tokenizer's own chat template to the prompt")
    scorers: list[Literal["exact", "numeric", "contains", "rouge_l", "chrf"]] = Field(
        [],
        description="scorers of generated responses, the first to rank by; none: the loss of held-out responses",
    )
    choices: str | None = Field(
        None,
        description="column of a list of texts that contains the response; the most likely text is the model's answer",
    )
    stop: list[str] = Field(
        [], description="texts that end a generated response, in addition to the tokenizer's end token"
    )

    def problems(self) -> Iterator[Problem]:
        try:
            fields(self.prompt)
        except ValueError as error:
            yield Problem(
                "task.prompt", self.prompt, "a column, or text with {COLUMN}s ({{ and }} are braces)", str(error)
            )
        if self.response is None and not self.chat:
            yield Problem("task.response", None, "a column with task.chat=false", "Messages need task.chat=true.")
        if self.choices is not None and self.scorers:
            yield Problem("task.scorers", self.scorers, "[] with task.choices", "Choices are ranked, not generated.")
        if len(set(self.scorers)) < len(self.scorers):
            yield Problem("task.scorers", self.scorers, "each scorer once")


@register("pairs", PairsConfig)
class Pairs(Task):
    kind = "text"
    config: PairsConfig

    def checks(self) -> Mapping[str, ColumnCheck]:
        config = self.config
        if config.response is None:
            return {config.prompt: MESSAGES} | self._choices()
        asked = dict.fromkeys(fields(config.prompt), TEXT if fields(config.prompt) == [config.prompt] else _PLAIN)
        return asked | self._choices() | {config.response: _NUMBER if "numeric" in config.scorers else TEXT}

    def _choices(self) -> dict[str, ColumnCheck]:
        column = self.config.choices
        return {} if column is None else {column: ColumnCheck(_CHOICES, self._is_choice, text=False)}

    def _is_choice(self, value: Any, row: Row) -> bool:
        if not isinstance(value, list) or len(value) < 2 or not all(TEXT.holds(choice, row) for choice in value):
            return False
        if self.config.response is None and not MESSAGES.holds(row[self.config.prompt], row):
            return False
        return self.target(row) in value

    def training_example(self, row: Row) -> TextExample:
        return TextExample(self.prompt(row), self.target(row))

    def prompt(self, row: Row) -> str | Conversation:
        config = self.config
        if config.response is None:
            return Conversation(tuple((message["role"], message["content"]) for message in row[config.prompt][:-1]))
        names = fields(config.prompt)
        text = row[config.prompt] if names == [config.prompt] else config.prompt.format_map(row)
        return Conversation((("user", text),)) if config.chat else text

    def target(self, row: Row) -> str:
        """The gold response of a row."""
        if self.config.response is None:
            return row[self.config.prompt][-1]["content"]
        return row[self.config.response]

    def _row_of(self, target: str) -> Row:
        if self.config.response is None:
            return {self.config.prompt: [{"role": "assistant", "content": target}]}
        return {self.config.response: target}

    def evaluations(self) -> Sequence[Evaluation]:
        config = self.config
        answered: Generation | Choice | None = None
        if config.choices is not None:
            answered = self._ranked(config.choices)
        elif config.scorers:
            answered = self._generated()
        return [HeldOut(*_SET, example=self.training_example, answered=answered)]

    def _ranked(self, column: str) -> Choice:
        return Choice(
            *_SET,
            prompt=self.prompt,
            choices=lambda row: row[column],
            gold=lambda row: row[column].index(self.target(row)),
        )

    def _generated(self) -> Generation:
        config = self.config
        scorers: dict[str, Scorer] = {name: graded(self.target, graders.GRADERS[name]) for name in config.scorers}
        return Generation(
            *_SET,
            prompt=self.prompt,
            target=self.target,
            scorers=scorers,
            headline=config.scorers[0],
            max_new_tokens=config.max_new_tokens,
            stop=tuple(config.stop),
            beams=config.beams,
            row_of=self._row_of,
        )


_CHOICES = "a list of two or more texts that are not empty, the response among them"


def _is_conversation(value: Any, _: Row) -> bool:
    if not isinstance(value, list) or len(value) < 2:
        return False
    whole = all(
        isinstance(message, dict) and message.get("role") in _ROLES and TEXT.holds(message.get("content"), message)
        for message in value
    )
    return whole and value[-1]["role"] == "assistant"


MESSAGES = ColumnCheck(
    "a list of {role, content}, roles system, user or assistant, contents that are not empty, the last one assistant's",
    _is_conversation,
)
_PLAIN = ColumnCheck("a text or a number", lambda value, _: isinstance(value, str | int | float), text=False)
_NUMBER = ColumnCheck(
    "text with a number, as the scorer numeric reads it",
    lambda value, row: TEXT.holds(value, row) and graders.last_number(value) is not None,
)
