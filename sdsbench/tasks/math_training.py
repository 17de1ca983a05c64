"""Code shared by the three math tasks (gsm8k, math, metamath): training sets, prompts, configuration keys.

A MetaMathQA row (Yu et al. 2023, 2309.12284), abridged:

    {"type": "GSM_Rephrased",
     "query": "Steve has 25 socks, 4 pairs of which match. How many mismatching socks does he have?",
     "original_question": "...",
     "response": "In 4 pairs there are 8 socks. ... 25-8 = 17.\\n#### 17\\nThe answer is: 17"}

Every training response ends in `The answer is: X`, whatever the set; GSM8K solutions have `#### n` before it. So the
model learns the marks that the scorers search for.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, Literal

from pydantic import Field

from sdsbench.core.errors import Unavailable
from sdsbench.data import catalogue
from sdsbench.data.catalogue import DataSet
from sdsbench.data.columns import TEXT
from sdsbench.tasks.answer_extraction import last_boxed
from sdsbench.tasks.base import Generation, Row, Task, TextExample, TextTaskConfig, graded
from sdsbench.tasks.graders.math import ANSWER_MARK
from sdsbench.tasks.prompts import STOP, THINK, alpaca

catalogue.add(
    DataSet(
        name="metamathqa",
        columns=("query", "response"),
        checks={"query": TEXT, "response": TEXT},
        hub_id="meta-math/MetaMathQA",
        revision="aa4f34d3d2d3231299b5b03d9b3e5a20da45aa18",
        splits={"train": "train"},
        folder="metamathqa",
        original="original_question",
        built_from=("gsm8k", "hendrycks_math"),
    ),
    DataSet(
        name="metamath_style_derived",
        columns=("query", "response"),
        checks={"query": TEXT, "response": TEXT},
        splits={"train": "train"},
        folder="metamath_style_derived",
        note="GSM8K and MATH training rows in MetaMathQA's columns; not MetaMathQA",
        original="original_question",
        built_from=("gsm8k", "hendrycks_math"),
    ),
)


class MathTaskConfig(TextTaskConfig):
    think_step_by_step: Literal["never", "test", "always"] = Field(
        "never",
        description='prompts that end in " Let\'s think step by step." (test: only test prompts, as in the papers)',
    )
    input_field: bool = Field(
        False,
        description="of training questions of several lines, the first becomes the instruction and the others the "
        "template's input (SDS-LoRA's code; test prompts have no input)",
    )
    template: Literal["plain", "lora_pro"] = Field(
        "plain",
        description="white space around a response: none, or a line break before and a space in front of it, as in "
        "LoRA-Pro's code",
    )
    train_types: Literal["all", "gsm"] = Field(
        "all", description="rows of MetaMathQA for training: all, or those whose type contains GSM"
    )


def training_prompt(question: str, config: MathTaskConfig) -> str:
    lead = _lead(config, config.think_step_by_step == "always")
    if not config.input_field:
        return alpaca(question, lead)
    instruction, _, others = question.partition("\n")
    return alpaca(instruction, lead, others)


def _lead(config: MathTaskConfig, thinks: bool) -> str:
    """The text between the template and the response."""
    return ("\n" if config.template == "lora_pro" else "") + (THINK if thinks else "")


def answered(
    name: str, version: int, dataset: str, question: str, gold: Callable[[Row], str],
    graders: Mapping[str, Callable[[str, str], float | None]], headline: str, config: MathTaskConfig,
) -> Generation:  # fmt: skip
    """The evaluation of a test set: the column `question` is the question, and `gold` extracts a row's gold answer."""
    return Generation(
        name, version, dataset, "test",
        prompt=lambda row: evaluation_prompt(row[question], config),
        target=gold,
        scorers={name: graded(gold, grader) for name, grader in graders.items()},
        headline=headline, max_new_tokens=config.max_new_tokens, stop=STOP, beams=config.beams,
    )  # fmt: skip


def evaluation_prompt(question: str, config: MathTaskConfig) -> str:
    """The question as the whole instruction; the papers' extra sentence unless `think_step_by_step=never`."""
    return alpaca(question, _lead(config, config.think_step_by_step != "never"))


class MathTask(Task):
    kind = "text"
    config: Any

    def training_example(self, row: Row) -> TextExample:
        """A row of MetaMathQA, GSM8K or MATH (told apart by their columns) as prompt and response.

        Raises Unavailable for a row with none of the three sets' columns.
        """
        if "query" in row:
            question, response = row["query"], row["response"]
        elif "question" in row:
            question, response = row["question"], gsm8k_response(row["answer"])
        elif "problem" in row:
            question, response = row["problem"], math_response(row["solution"])
        else:
            raise Unavailable(
                f"task.train_set: a row with the columns {', '.join(sorted(row))} is none that a math task trains on "
                "(metamathqa: query, response; gsm8k: question, answer; hendrycks_math: problem, solution)"
            )
        space = " " if self.config.template == "lora_pro" else ""
        return TextExample(training_prompt(question, self.config), space + response)

    def trains_on(self) -> Callable[[Row], bool] | None:
        return None if self.config.train_types == "all" else _is_of_gsm8k


def _is_of_gsm8k(row: Row) -> bool:
    """Whether a row of MetaMathQA was made from GSM8K. Raises Unavailable for rows of sets without types."""
    if "type" not in row:
        raise Unavailable(
            f"task.train_types=gsm: accepted: all, or a training set in MetaMathQA's columns, whose `type` says from "
            f"what a row was made; its rows have {', '.join(sorted(row))}"
        )
    return "GSM" in row["type"]


def gsm8k_response(answer: str) -> str:
    """GSM8K's solution without the calculator marks `<<48/2=24>>`, in MetaMathQA's form."""
    solution = re.sub(r"<<[^<>]*>>", "", answer).strip()
    final = solution.rsplit("####", 1)[-1].strip()
    return f"{solution}\n{ANSWER_MARK}{final}"


def math_response(solution: str) -> str:
    """MATH's solution in MetaMathQA's form; the answer is the content of the last box."""
    return f"{solution.strip()}\n{ANSWER_MARK}{last_boxed(solution) or ''}"
