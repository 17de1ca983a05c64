"""GLUE (Wang et al. 2019): sentence classification, scored on the validation split as in the papers. A row of rte:

    {"sentence1": "A place of sorrow, after Pope John Paul II died, became a place of celebration, as ...",
     "sentence2": "Pope Benedict XVI is the new leader of the Roman Catholic Church.",
     "label": 0, "idx": 1}

The reported score is that of the last epoch; the best epoch on the validation split, which the papers report, is stored
beside it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sdsbench.data import catalogue
from sdsbench.data.catalogue import DataSet
from sdsbench.data.columns import TEXT, class_number, number
from sdsbench.tasks.base import Evaluation, Labelled, TaskConfig, register
from sdsbench.tasks.classification import Aggregate, AggregateConfig
from sdsbench.tasks.sentences import SentenceTask


@dataclass(frozen=True)
class GlueSet:
    """One of the nine tasks; the first metric is the headline."""

    columns: tuple[str, ...]
    labels: tuple[str, ...]  # index = class number; empty: regression of a similarity from 0 to 5
    metrics: tuple[str, ...] = ("accuracy",)


PAIR = ("sentence1", "sentence2")
ENTAILMENT = ("entailment", "not_entailment")
SETS: Mapping[str, GlueSet] = {
    "cola": GlueSet(("sentence",), ("unacceptable", "acceptable"), ("matthews", "accuracy")),
    "rte": GlueSet(PAIR, ENTAILMENT),
    "mrpc": GlueSet(PAIR, ("not_equivalent", "equivalent"), ("accuracy", "f1")),
    "stsb": GlueSet(PAIR, (), ("pearson", "spearman")),
    "qnli": GlueSet(("question", "sentence"), ENTAILMENT),
    "sst2": GlueSet(("sentence",), ("negative", "positive")),
    "mnli": GlueSet(("premise", "hypothesis"), ("entailment", "neutral", "contradiction")),
    "qqp": GlueSet(("question1", "question2"), ("not_duplicate", "duplicate"), ("accuracy", "f1")),
    "wnli": GlueSet(PAIR, ("not_entailment", "entailment")),
}
MISMATCHED = "mnli_mismatched"  # MNLI's second validation split: other genres than the training set's


def _data_set(name: str, source: str, splits: Mapping[str, str]) -> DataSet:
    return DataSet(
        name=f"glue/{name}",
        columns=(*SETS[source].columns, "label"),
        hub_id="nyu-mll/glue",
        revision="bcdcba79d07bc864c1c254ccfcedcce55bcc9a8c",
        hub_config=source,
        splits=splits,
        checks={column: TEXT for column in SETS[source].columns}
        | {"label": class_number(SETS[source].labels) if SETS[source].labels else number(0, 5)},
        folder=f"glue/{name}",
        classes="label" if SETS[source].labels else None,
        held_back_from="glue/mnli" if name == MISMATCHED else None,
    )


for _name in SETS:
    _validation = "validation_matched" if _name == "mnli" else "validation"
    catalogue.add(_data_set(_name, _name, {"train": "train", "validation": _validation}))
catalogue.add(_data_set(MISMATCHED, "mnli", {"validation": "validation_mismatched"}))


class GlueTask(SentenceTask):
    definition: GlueSet

    def evaluations(self) -> Sequence[Evaluation]:
        short = self.name.split("/")[1]
        return [self._evaluation(name) for name in ((short, MISMATCHED) if short == "mnli" else (short,))]

    def _evaluation(self, short: str) -> Labelled:
        metrics = self.definition.metrics
        return Labelled(f"glue/{short}", 1, f"glue/{short}", "validation", metrics=metrics, headline=metrics[0])


for _name, _set in SETS.items():
    register(f"glue/{_name}", TaskConfig)(
        type(
            f"Glue_{_name}",
            (GlueTask,),
            {"definition": _set, "columns": _set.columns, "label_names": _set.labels, "__module__": __name__},
        )
    )


@register("glue", AggregateConfig)
class Glue(Aggregate):
    """The six tasks of the papers; the mean averages each task's headline metric."""

    kind = "classification"

    def means(self) -> Mapping[str, Sequence[str]]:
        return {"glue": self.config.members}
