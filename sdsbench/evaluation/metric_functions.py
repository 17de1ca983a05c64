"""A local metric module of `evaluate`, backed by scikit-learn and scipy: hub metrics need the network.

One configuration per metric: accuracy, f1, matthews, pearson, spearman. `evaluate.load` also takes this file's path; it
wants one import a line.
"""

import datasets
import evaluate

_DESCRIPTION = "Metrics of predicted against true labels: {names}."
_CITATION = "Pedregosa et al. 2011 (scikit-learn), Virtanen et al. 2020 (scipy)"


def _accuracy(references, predictions):
    from sklearn.metrics import accuracy_score

    return accuracy_score(references, predictions)


def _f1(references, predictions):
    """Of the class with number 1, as GLUE defines it."""
    from sklearn.metrics import f1_score

    return f1_score(references, predictions, zero_division=0.0)


def _matthews(references, predictions):
    from sklearn.metrics import matthews_corrcoef

    return matthews_corrcoef(references, predictions)


def _pearson(references, predictions):
    from scipy.stats import pearsonr

    return pearsonr(references, predictions).statistic


def _spearman(references, predictions):
    from scipy.stats import spearmanr

    return spearmanr(references, predictions).statistic


CLASSES = {"accuracy": _accuracy, "f1": _f1, "matthews": _matthews}
VALUES = {"pearson": _pearson, "spearman": _spearman}
FUNCTIONS = {**CLASSES, **VALUES}


class LabelledMetrics(evaluate.Metric):
    def _info(self):
        kind = datasets.Value("int64" if self.config_name in CLASSES else "float64")
        return evaluate.MetricInfo(
            description=_DESCRIPTION.format(names=", ".join(FUNCTIONS)),
            citation=_CITATION,
            inputs_description="predictions and references: one number per example",
            features=datasets.Features({"predictions": kind, "references": kind}),
        )

    def _compute(self, predictions, references):
        return {self.config_name: float(FUNCTIONS[self.config_name](references, predictions))}
