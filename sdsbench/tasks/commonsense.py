"""CommonSense170K (LLM-Adapters, Hu et al. 2023, 2304.01933): eight benchmarks in one template. A sample row:

    {"instruction": "Please answer the following question with true or false, question: does ethanol take more energy
                     make that produces?\\n\\nAnswer format: true/false",
     "input": "",
     "output": "the correct answer is false",
     "answer": "false"}

One training on the mixture. The answer's label word is generated and read in two ways (`paper`, `lora_sb`: see
graders/commonsense.py), or the labels are ranked (`likelihood`): two evaluations with names of their own.
BoolQ comes without its passage, as in the papers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Annotated, Any, Literal

from pydantic import Field

from sdsbench.core.section import Count, only_where, other_than
from sdsbench.data import catalogue
from sdsbench.data.catalogue import DataSet
from sdsbench.data.columns import TEXT, TEXT_OR_EMPTY, ColumnCheck
from sdsbench.tasks.base import Choice, Evaluation, Generation, Row, Scorer, Task, TextExample, TextTaskConfig, register
from sdsbench.tasks.graders import commonsense as graders
from sdsbench.tasks.prompts import STOP, alpaca, indented_alpaca

COLUMNS = ("instruction", "input", "output", "answer")
QUESTION = ("instruction",)
PREPARED_BY = "python scripts/prepare_commonsense.py LLM-ADAPTERS-FOLDER FOLDER"


def labels(row: Row) -> list[str]:
    """The labels that the row offers, as its last line lists them: `Answer format: true/false`."""
    return row["instruction"].rsplit("Answer format:", 1)[-1].strip().split("/")


def _offered(answer: Any, row: Row) -> bool:
    return isinstance(row["instruction"], str) and answer in labels(row)


CHECKS = {
    "instruction": TEXT,
    "input": TEXT_OR_EMPTY,
    "output": TEXT,
    "answer": ColumnCheck("one of the labels after `Answer format:` in the instruction", _offered),
}

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
LIKELIHOOD = "likelihood"
_GENERATED = only_where(scorers=other_than([LIKELIHOOD]))

catalogue.add(
    DataSet(
        name="commonsense_170k",
        columns=COLUMNS,
        checks=CHECKS,
        hub_id="zwhe99/commonsense_170k",
        splits={"train": "train"},
        folder="commonsense_170k",
        question=QUESTION,
        classes="answer",
        built_from=tuple(BENCHMARKS),
        prepared_by=PREPARED_BY,
        note="hub revision not pinned: the commit that was read is recorded",
    ),
    DataSet(
        name="commonsense_170k_sample",
        columns=COLUMNS,
        checks=CHECKS,
        splits={"train": "train"},
        folder="commonsense_170k_sample",
        note="20,000 rows in other proportions and without PIQA; not CommonSense170K",
        question=QUESTION,
        classes="answer",
        built_from=tuple(BENCHMARKS),
    ),
    *(
        DataSet(
            name=benchmark,
            columns=COLUMNS,
            checks=CHECKS,
            folder=folder,
            question=QUESTION,
            classes="answer",
            prepared_by=PREPARED_BY,
            note=f"LLM-Adapters' dataset/{folder.split('/')[1]}/test.json as parquet (no hub set has this form)",
        )
        for benchmark, (folder, _) in BENCHMARKS.items()
    ),
)


class CommonsenseConfig(TextTaskConfig):
    max_new_tokens: Annotated[Count, _GENERATED] = Field(
        32, description="largest length of a generated answer, in tokens"
    )
    beams: Annotated[Count, _GENERATED] = Field(1, description="number of beams of beam search; 1 is greedy")
    scorers: list[Literal["paper", "lora_sb", "likelihood"]] = Field(
        ["paper"],
        min_length=1,
        description="the generated label, read as by LLM-Adapters (paper) or LoRA-SB, or the label ranked first "
        "(likelihood)",
    )
    template: Literal["plain", "llm_adapters", "lora_xs"] = Field(
        "plain",
        description="white space of prompts: the same for training and test, or as in LLM-Adapters' or LoRA-XS's code",
    )


class CommonsenseTask(Task):
    kind = "text"
    benchmarks: Sequence[str] = ()

    def training_example(self, row: Row) -> TextExample:
        return TextExample(training_prompt(row, self.config.template), row["output"])

    def evaluations(self) -> Sequence[Evaluation]:
        """Per benchmark one evaluation by generation and one by likelihood, as far as task.scorers names them.

        Both generation scorers grade the same text; the first one named is the headline.
        """
        readings = [scorer for scorer in self.config.scorers if scorer != LIKELIHOOD]
        found: list[Evaluation] = []
        for benchmark in self.benchmarks:
            if readings:
                found.append(self._generation(benchmark, readings[0]))
            if LIKELIHOOD in self.config.scorers:
                found.append(self._choice(benchmark))
        return found

    def means(self) -> Mapping[str, Sequence[str]]:
        if len(self.benchmarks) == 1:
            return {}
        return {"commonsense": self.benchmarks, "commonsense_likelihood": [*map(ranked, self.benchmarks)]}

    def _generation(self, benchmark: str, headline: str) -> Generation:
        offered = BENCHMARKS[benchmark][1]
        scorers = {name: _reading(grader, offered) for name, grader in graders.GRADERS.items()}
        return Generation(
            name=benchmark,
            version=2,  # 1 took labels in capitals too
            dataset=benchmark,
            split="test",
            prompt=partial(test_prompt, template=self.config.template),
            target=lambda row: row["answer"],
            scorers=scorers,
            headline=headline,
            max_new_tokens=self.config.max_new_tokens,
            stop=STOP,
            beams=self.config.beams,
        )

    def _choice(self, benchmark: str) -> Choice:
        return Choice(
            name=ranked(benchmark),
            version=1,
            dataset=benchmark,
            split="test",
            prompt=partial(test_prompt, template=self.config.template),
            choices=responses,
            gold=lambda row: labels(row).index(row["answer"]),
        )


@register("commonsense", CommonsenseConfig)
class Commonsense(CommonsenseTask):
    benchmarks = tuple(BENCHMARKS)


for _benchmark in BENCHMARKS:
    register(f"commonsense/{_benchmark}", CommonsenseConfig)(
        type(f"Commonsense_{_benchmark}", (CommonsenseTask,), {"benchmarks": (_benchmark,), "__module__": __name__})
    )


def ranked(benchmark: str) -> str:
    """The name of the evaluation that ranks a benchmark's labels by likelihood."""
    return f"{benchmark}_{LIKELIHOOD}"


def _reading(grader: Callable[[Sequence[str], str, str], bool], offered: Sequence[str]) -> Scorer:
    return lambda row, text: grader(offered, row["answer"], text)


def training_prompt(row: Row, template: str) -> str:
    """Like test_prompt, but with the white space of the public training codes, which differs from their test code;
    LoRA-XS's code differs from the others."""
    if template == "plain":
        return test_prompt(row, template)
    return indented_alpaca(row["instruction"], "  ", " " * 16 if template == "llm_adapters" else "")


def test_prompt(row: Row, template: str) -> str:
    return alpaca(row["instruction"], "\n") if template == "plain" else indented_alpaca(row["instruction"], " ", "")


def responses(row: Row) -> list[str]:
    """The training response of each label; they share all but the label word."""
    return [f"the correct answer is {label}" for label in labels(row)]
