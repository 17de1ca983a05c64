"""GSM8K: grade-school word problems (Cobbe et al. 2021). A sample row:

    {"question": "Natalia sold clips to 48 of her friends in April, and then she sold half as many clips in May. How
                  many clips did Natalia sell altogether in April and May?",
     "answer": "Natalia sold 48/2 = <<48/2=24>>24 clips in May.\\nNatalia sold 48+24 = <<48+24=72>>72 clips altogether
                in April and May.\\n#### 72"}

Zero-shot with the training prompt; three scorers read one generation (see the end of the file).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from fractions import Fraction

from sdsbench.data import catalogue
from sdsbench.data.catalogue import DataSet
from sdsbench.tasks.answers import after_last_mark
from sdsbench.tasks.base import Evaluation, Generation, Row, Task, TextExample, register
from sdsbench.tasks.math_training import ANSWER_MARK, MathTaskConfig, evaluation_prompt, training_example
from sdsbench.tasks.prompts import STOP

catalogue.add(
    DataSet(
        name="gsm8k",
        columns=("question", "answer"),
        hub_id="openai/gsm8k",
        hub_config="main",
        revision="740312add88f781978c0658806c59bc2815b9866",
        folder="gsm8k",
    )
)


@register("gsm8k", MathTaskConfig)
class GSM8K(Task):
    kind = "text"

    def training_example(self, row: Row) -> TextExample:
        return training_example(row, self.config)

    def evaluations(self) -> Sequence[Evaluation]:
        return [evaluation(self.config)]


def evaluation(config: MathTaskConfig) -> Generation:
    return Generation(
        name="gsm8k",
        version=1,
        dataset="gsm8k",
        split="test",
        prompt=lambda row: evaluation_prompt(row["question"], config),
        target=lambda row: gold(row),
        scorers={"paper": paper, "strict": strict, "flexible": flexible},
        headline="flexible",
        max_new_tokens=config.max_new_tokens,
        stop=STOP,
        beams=config.beams,
    )


# --- scorers: (row, generated text) -> correct; no input raises ---


def gold(row: Row) -> str:
    """The number after `####`, without thousands commas."""
    return row["answer"].rsplit("####", 1)[-1].strip().replace(",", "")


def paper(row: Row, text: str) -> bool:
    """The papers' grader: first number after the last `The answer is: `, rounded to an integer.

    Its flaws are kept: the gold answer times or divided by 100 also counts (meant for percentages), 17.6 becomes 18,
    `1,234,567` is read as 1,234, and any other wording of the answer counts as wrong.
    """
    answer = after_last_mark(text, ANSWER_MARK)
    predicted = None if answer is None else _first_number_rounded(answer)
    if predicted is None:
        return False
    number = Fraction(gold(row))
    return predicted in (number, number * 100, number / 100)


_PAPER_NUMBER = re.compile(r"[+-]?[0-9]*[.,/]?[0-9]+")


def _first_number_rounded(answer: str) -> int | None:
    match = _PAPER_NUMBER.search(answer)
    if match is None or len(match.group()) > 300:  # beyond 300 digits a float is infinite, which the papers refuse
        return None
    numerator, _, denominator = match.group().replace(",", "").partition("/")
    if numerator in ("", "+", "-"):  # "/7"
        return None
    value = Fraction(numerator)
    if denominator and int(denominator):
        value /= int(denominator)
    return round(value)


def strict(row: Row, text: str) -> bool:
    """lm-eval's strict-match: the number after the first `#### `."""
    found = re.search(r"#### (\-?[0-9\.\,]+)", text)
    return found is not None and _same_as_gold(row, found.group(1))


def flexible(row: Row, text: str) -> bool:
    """lm-eval's flexible-extract: the last number of the text."""
    found = re.findall(r"-?[$0-9.,]{2,}|-?[0-9]+", text)
    return bool(found) and _same_as_gold(row, found[-1])


def _same_as_gold(row: Row, answer: str) -> bool:
    """lm-eval's exact_match for GSM8K: commas, dollar signs and a final point do not count."""
    return answer.strip().replace(",", "").replace("$", "").removesuffix(".") == gold(row)
