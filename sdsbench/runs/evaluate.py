"""Scores of a model on every evaluation set of a run, written into its step log and samples folder."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import torch
from torch import nn

from sdsbench.core import samples
from sdsbench.core.progress import Progress
from sdsbench.core.record import Score
from sdsbench.core.step_log import StepLog
from sdsbench.data.draw import limited
from sdsbench.evaluation.text import Evaluated
from sdsbench.evaluation.validation_loss import mean_loss
from sdsbench.methods.attach import adapted_layers, merged
from sdsbench.runs.run_context import ActiveRun
from sdsbench.training.precision import Device

if TYPE_CHECKING:
    from sdsbench.runs.prepare import Loaded


def evaluate(run: ActiveRun, loaded: Loaded, stage: str, step: int) -> None:
    """Score every evaluation set after `step` optimizer steps; the step log is the only place that scores go to."""
    for evaluated in outcomes(run, loaded, stage):
        keep_samples(run, evaluated)
        log_scores(run, evaluated, step)


def evaluate_epoch(run: ActiveRun, loaded: Loaded, step: int) -> None:
    """Score after an epoch; samples are kept of the best one, by each evaluation's headline score."""
    earlier = {score.evaluation: score for score in best_epoch(run).values() if score.headline}
    for evaluated in outcomes(run, loaded, "best_epoch"):
        headline = next(score for score in evaluated.scores if score.headline)
        if headline.evaluation not in earlier or headline.value > earlier[headline.evaluation].value:
            keep_samples(run, evaluated)
        log_scores(run, evaluated, step)
    loaded.model.model.train()


def best_epoch(run: ActiveRun) -> dict[tuple[str, str], Score]:
    """Scores by (evaluation, scorer) after the epoch with the best headline score; the earliest of equal ones."""
    return {which: score for which, (score, _) in _best(run).items()}


def best_epoch_steps(run: ActiveRun) -> dict[str, int]:
    """Per evaluation the optimizer step after which its headline score was best."""
    return {score.evaluation: step for score, step in _best(run).values() if score.headline}


def scores_of_stage(run: ActiveRun, stage: str) -> list[Score]:
    """The scores of a stage that takes place once, from the step log."""
    return [score for score, _ in _logged(run, stage)]


def outcomes(run: ActiveRun, loaded: Loaded, stage: str) -> Iterator[Evaluated]:
    """Scores and samples of one evaluation set after the other."""
    plain = evaluation_model(loaded.model.model, loaded.device)
    limit = run.config.eval.untrained_limit if stage == "untrained" else None
    for evaluation, rows in loaded.data.evaluations:
        some = limited(rows, limit, "random")
        with Progress(f"evaluate {evaluation.name} ({stage})", len(some)) as progress:
            advance = _advance(run, progress)
            found = loaded.family.evaluate(plain, evaluation, some, stage, run.config.eval.batch_size, advance)
        yield found


def _advance(run: ActiveRun, progress: Progress) -> Callable[[int], None]:
    """Shows what is done, and stops at a signal."""

    def advance(units: int) -> None:
        progress.advance(units)
        run.stop.raise_if_received("evaluation starts again from the state before it")

    return advance


def validation_loss(run: ActiveRun, loaded: Loaded) -> float | None:
    """Mean loss on the rows that a tuning run is scored on; None where they are not of the training set's form.

    A model that trains on MetaMathQA and answers GSM8K, say, has no loss on GSM8K's rows.
    """
    config = run.config
    rows = [rows for _, rows in loaded.data.evaluations if rows.dataset == config.task.train_set]
    if config.eval.split != "validation" or len(rows) != len(loaded.data.evaluations):
        return None
    examples = [example for some in rows for example in loaded.family.encode_all(some)]
    plain = evaluation_model(loaded.model.model, loaded.device)
    with Progress("loss on rows held back", len(examples)) as progress:
        return mean_loss(plain, loaded.family, examples, config.eval.batch_size, _advance(run, progress))


def keep_samples(run: ActiveRun, evaluated: Evaluated) -> None:
    score = evaluated.scores[0]
    samples.write(samples.path_of(run.folder, score.evaluation, score.stage), evaluated.samples)


def log_scores(run: ActiveRun, evaluated: Evaluated, step: int) -> None:
    with StepLog(run.folder / "metrics.jsonl") as log:
        for score in evaluated.scores:
            log.write("eval", step, **score.model_dump())


def evaluation_model(model: nn.Module, device: Device) -> nn.Module:
    """The model that is scored: a plain fp32 copy with the adapters folded in, on a GPU in 16 bits the trained model.

    Adapters are folded where that changes their update by less than 1 %: fp32 changes it by a hundredth of that at
    most, bf16 by 3 to 60 % (docs/speed.md). On a CPU fp32 is also the faster type. The copy is one model more.
    """
    if device.device.type == "cuda" and (device.dtype != torch.float32 or not adapted_layers(model)):
        return model.eval()
    return merged(model, torch.float32).eval()


def _logged(run: ActiveRun, stage: str) -> list[tuple[Score, int]]:
    from sdsbench.core.step_log import read

    lines = [line for line in read(run.folder / "metrics.jsonl") if line["kind"] == "eval" and line["stage"] == stage]
    return [(Score(**{k: v for k, v in line.items() if k not in ("kind", "step")}), line["step"]) for line in lines]


def _best(run: ActiveRun) -> dict[tuple[str, str], tuple[Score, int]]:
    logged = _logged(run, "best_epoch")
    steps: dict[str, tuple[float, int]] = {}
    for score, step in logged:
        if score.headline and (score.evaluation not in steps or score.value > steps[score.evaluation][0]):
            steps[score.evaluation] = (score.value, step)
    chosen = {evaluation: step for evaluation, (_, step) in steps.items()}
    return {(s.evaluation, s.scorer): (s, step) for s, step in logged if step == chosen.get(s.evaluation)}
