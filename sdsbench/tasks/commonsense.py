"""CommonSense170K (LLM-Adapters, Hu et al. 2023, 2304.01933): eight benchmarks in one template. A sample row:

    {"instruction": "Please answer the following question with true or false, question: does ethanol take more energy
                     make that produces?\\n\\nAnswer format: true/false",
     "input": "",
     "output": "the correct answer is false",
     "answer": "false"}

One training on the mixture; the answer's label word is generated (`paper`), or the labels are ranked (`likelihood`).
BoolQ comes without its passage, as in the papers.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Literal

from pydantic import Field

from sdsbench.core.section import Count, only_where, other_than
from sdsbench.data import catalogue
from sdsbench.data.catalogue import DataSet
from sdsbench.tasks.base import Choice, Evaluation, Generation, Row, Task, TextExample, TextTaskConfig, register
from sdsbench.tasks.prompts import STOP, alpaca

COLUMNS = ("instruction", "input", "output", "answer")
QUESTION = ("instruction",)
PREPARED_BY = "python scripts/prepare_commonsense.py LLM-ADAPTERS-FOLDER FOLDER"

# benchmark -> (folder below data.root, the labels that a generated answer may name)
_ANSWERS = ("answer1", "answer2", "answer3", "answer4", "answer5")
BENCHMARKS: Mapping[str, tuple[str, Sequence[str]]] = {
    "boolq": ("commonsense/boolq", ("true", "false")),
    "piqa": ("commonsense/piqa", ("solution1", "solution2")),
    "social_i_qa": ("commonsense/social_i_qa", _ANSWERS),
    "hellaswag": ("commonsense/hellaswag", ("ending1", "ending2", "ending3", "ending4")),
    "winogrande": ("commonsense/winogrande", ("option1", "option2")),
    "arc_easy": ("commonsense/ARC-Easy", _ANSWERS),
    "arc_challenge": ("commonsense/ARC-Challenge", _ANSWERS),
    "openbookqa": ("commonsense/openbookqa", _ANSWERS),
}
_GENERATED = only_where(scorers=other_than(["likelihood"]))

catalogue.add(
    DataSet(
        name="commonsense_170k",
        columns=COLUMNS,
        hub_id="zwhe99/commonsense_170k",
        splits={"train": "train"},
        folder="commonsense_170k",
        question=QUESTION,
        built_from=tuple(BENCHMARKS),
        prepared_by=PREPARED_BY,
        note="hub revision not pinned: the commit that was read is recorded",
    ),
    DataSet(
        name="commonsense_170k_sample",
        columns=COLUMNS,
        splits={"train": "train"},
        folder="commonsense_170k_sample",
        note="20,000 rows in other proportions and without PIQA; not CommonSense170K",
        question=QUESTION,
        built_from=tuple(BENCHMARKS),
    ),
    *(
        DataSet(
            name=benchmark,
            columns=COLUMNS,
            folder=folder,
            question=QUESTION,
            prepared_by=PREPARED_BY,
            note=f"LLM-Adapters' dataset/{folder.split('/')[1]}/test.json as parquet (no hub set has this form)",
        )
        for benchmark, (folder, _) in BENCHMARKS.items()
    ),
)


class CommonsenseConfig(TextTaskConfig):
    max_new_tokens: Annotated[Count, _GENERATED] = Field(32, description="cap of one generated answer, in tokens")
    beams: Annotated[Count, _GENERATED] = Field(1, description="beams of the search for an answer; 1 is greedy")
    scorers: list[Literal["paper", "likelihood"]] = Field(
        ["paper"], min_length=1, description="generated label word, or labels ranked; the first one given ranks methods"
    )


class CommonsenseTask(Task):
    kind = "text"
    benchmarks: Sequence[str] = ()

    def training_example(self, row: Row) -> TextExample:
        return TextExample(prompt(row), row["output"])

    def evaluations(self) -> Sequence[Evaluation]:
        makers: Mapping[str, Callable[[str], Evaluation]] = {"paper": self._generation, "likelihood": self._choice}
        return [makers[scorer](benchmark) for benchmark in self.benchmarks for scorer in self.config.scorers]

    def means(self) -> Mapping[str, Sequence[str]]:
        return {"commonsense": self.benchmarks} if len(self.benchmarks) > 1 else {}

    def _generation(self, benchmark: str) -> Generation:
        return Generation(
            name=benchmark,
            version=2,  # 1 took labels in capitals too
            dataset=benchmark,
            split="test",
            prompt=prompt,
            target=lambda row: row["answer"],
            scorers={"paper": lambda row, text: paper(benchmark, row, text)},
            headline=self.config.scorers[0],
            max_new_tokens=self.config.max_new_tokens,
            stop=STOP,
            beams=self.config.beams,
        )

    def _choice(self, benchmark: str) -> Choice:
        return Choice(
            name=benchmark,
            version=1,
            dataset=benchmark,
            split="test",
            prompt=prompt,
            choices=responses,
            gold=lambda row: labels(row).index(row["answer"]),
            headline=self.config.scorers[0],
        )


@register("commonsense", CommonsenseConfig)
class Commonsense(CommonsenseTask):
    benchmarks = tuple(BENCHMARKS)


for _benchmark in BENCHMARKS:
    register(f"commonsense/{_benchmark}", CommonsenseConfig)(
        type(f"Commonsense_{_benchmark}", (CommonsenseTask,), {"benchmarks": (_benchmark,), "__module__": __name__})
    )


def prompt(row: Row) -> str:
    """One template for training and test (LLM-Adapters' public code has other white space in each)."""
    return alpaca(row["instruction"], "\n")


def labels(row: Row) -> list[str]:
    """The labels that the row offers, as its last line lists them: `Answer format: true/false`."""
    return row["instruction"].rsplit("Answer format:", 1)[-1].strip().split("/")


def responses(row: Row) -> list[str]:
    """The training response of each label; they share all but the label word."""
    return [f"the correct answer is {label}" for label in labels(row)]


# --- scorer ---


def paper(benchmark: str, row: Row, text: str) -> bool:
    """The papers' grader: the first label of the benchmark in the text, letter for letter (TRUE is none)."""
    found = re.search("|".join(BENCHMARKS[benchmark][1]), text)
    return found is not None and found.group() == row["answer"]
