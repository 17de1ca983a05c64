"""Evaluate a model on every evaluation set of a run; write scores to the step log and answers to the samples folder."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from sdsbench.core import samples, step_log
from sdsbench.core.progress import Progress
from sdsbench.core.record import Score
from sdsbench.core.step_log import StepLog
from sdsbench.data.draw import limited
from sdsbench.evaluation.lm_eval_tasks import Watch
from sdsbench.evaluation.text import Answering, Evaluated, own_answers
from sdsbench.evaluation.validation_loss import mean_loss
from sdsbench.methods.attach import adapted_layers, merged
from sdsbench.runs.run_context import ActiveRun
from sdsbench.runs.vllm_answers import answering
from sdsbench.training.precision import Device

if TYPE_CHECKING:
    from sdsbench.runs.prepare import Loaded


def evaluate(run: ActiveRun, loaded: Loaded, stage: str, step: int) -> None:
    """Score every evaluation set after `step` optimizer steps; scores are written to the step log only."""
    for evaluated in outcomes(run, loaded, stage):
        keep_samples(run, evaluated)
        log_scores(run, evaluated, step)
    evaluate_retention(run, loaded, stage, step)


def evaluate_retention(run: ActiveRun, loaded: Loaded, stage: str, step: int) -> None:
    """Score retention: the tasks of eval.also and the text of eval.text, which are not trained on."""
    if not run.config.eval.retention:
        return
    plain = evaluation_model(loaded.model.model, loaded.device)
    for evaluated in loaded.family.retained(plain, run.config, stage, loaded.data.text, _watch(run, stage)):
        keep_samples(run, evaluated)
        log_scores(run, evaluated, step)


def evaluate_along(run: ActiveRun, loaded: Loaded, base: Mapping[str, Tensor], step: int) -> None:
    """Score W0 + t dW for every t of eval.along: weights between base and trained model may score better than both.

    `base` holds W0 by name, for a new head its initial values. Answers are not stored.
    """
    plain = merged(loaded.model.model, torch.float32).eval()
    update = {name: p.detach() - base[name].to(p) for name, p in plain.named_parameters() if name in base}
    for share in run.config.eval.along:
        with torch.no_grad():
            for name, parameter in plain.named_parameters():
                if name in update:
                    parameter.copy_(base[name].to(parameter) + share * update[name])
        beside = loaded.family.retained(plain, run.config, "along", loaded.data.text, _watch(run, "along"))
        for evaluated in (*scored(run, loaded, plain, "along"), *beside):
            scores = [score.model_copy(update={"along": share}) for score in evaluated.scores]
            log_scores(run, Evaluated(scores), step)


def evaluate_epoch(run: ActiveRun, loaded: Loaded, step: int) -> None:
    """Score after an epoch; for each evaluation, keep the samples of the epoch with the best headline score."""
    earlier = {score.evaluation: score for score in best_epoch(run).values() if score.headline}
    for evaluated in outcomes(run, loaded, "best_epoch"):
        headline = next(score for score in evaluated.scores if score.headline)
        if headline.evaluation not in earlier or headline.rank > earlier[headline.evaluation].rank:
            keep_samples(run, evaluated)
        log_scores(run, evaluated, step)
    loaded.model.model.train()


def best_epoch(run: ActiveRun) -> dict[tuple[str, str], Score]:
    """Scores by (evaluation, scorer) of the epoch with the best headline score; on a tie, the earlier epoch."""
    return {which: score for which, (score, _) in _best(run).items()}


def best_epoch_steps(run: ActiveRun) -> dict[str, int]:
    """For each evaluation, the optimizer step after which its headline score was best."""
    return {score.evaluation: step for score, step in _best(run).values() if score.headline}


def scores_of_stage(run: ActiveRun, stage: str) -> list[Score]:
    """The scores of a stage that occurs once per run (not an epoch), from the step log."""
    return [score for score, _ in _logged(run, stage)]


def outcomes(run: ActiveRun, loaded: Loaded, stage: str) -> Iterator[Evaluated]:
    """Yield the scores and samples of each evaluation set for the run's current model."""
    limit = run.config.eval.untrained_limit if stage == "untrained" else None
    plain = evaluation_model(loaded.model.model, loaded.device)
    with answering(run.config, loaded.model, loaded.device, run.folder / "vllm", partial(_note_engine, run)) as engine:
        yield from scored(run, loaded, plain, stage, limit, engine)


def scored(
    run: ActiveRun,
    loaded: Loaded,
    plain: nn.Module,
    stage: str,
    limit: int | None = None,
    engine: Callable[[str], Answering] = lambda evaluation: own_answers,
) -> Iterator[Evaluated]:
    """Yield the scores and samples of each evaluation set for the model `plain`, on at most `limit` rows."""
    for evaluation, rows in loaded.data.evaluations:
        some = limited(rows, limit, "random")
        with _watch(run, stage)(evaluation.name, len(some)) as advance:
            found = loaded.family.evaluate(
                plain, evaluation, some, stage, run.config.eval.batch_size, advance, engine(evaluation.name)
            )
        yield found


def _note_engine(run: ActiveRun, evaluation: str, text: str) -> None:
    """Say and record which engine answered an evaluation set of eval.engine=vllm."""
    run.log(f"{evaluation}: {text}")
    run.keeper.record.placing.setdefault("engine", {})[evaluation] = text


def _watch(run: ActiveRun, stage: str) -> Watch:
    """A progress line for the evaluations of a stage; raises Interrupted after a signal."""

    @contextmanager
    def watched(what: str, units: int) -> Iterator[Callable[[int], None]]:
        with Progress(f"evaluate {what} ({stage})", units) as progress:
            yield _advance(run, progress)

    return watched


def _advance(run: ActiveRun, progress: Progress) -> Callable[[int], None]:
    """A function that advances the progress line and raises Interrupted after a signal."""

    def advance(units: int) -> None:
        progress.advance(units)
        run.stop.raise_if_received("evaluation starts again from the state before it")

    return advance


def validation_loss(run: ActiveRun, loaded: Loaded) -> float | None:
    """Mean loss per target (nats) on a tuning run's validation rows; None if they are not of the training set's form.

    For example, there is no such loss if a model trains on MetaMathQA and is validated on GSM8K.
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
    """The model to score: a plain fp32 copy with merged adapters, or on a GPU in 16 bits the trained model itself.

    Merging is used only where rounding changes the update by less than 1 %: at most 0.01 % in fp32, but 3 to 60 % in
    bf16 (docs/speed.md). On a CPU, fp32 is also faster. The copy needs the memory of one more model.
    """
    if device.device.type == "cuda" and (device.dtype != torch.float32 or not adapted_layers(model)):
        return model.eval()
    return merged(model, torch.float32).eval()


def _logged(run: ActiveRun, stage: str) -> list[tuple[Score, int]]:
    lines = step_log.scores(run.folder / "metrics.jsonl", stage)
    return [(Score(**{k: v for k, v in line.items() if k not in ("kind", "step")}), line["step"]) for line in lines]


def _best(run: ActiveRun) -> dict[tuple[str, str], tuple[Score, int]]:
    logged = _logged(run, "best_epoch")
    steps: dict[str, tuple[float, int]] = {}
    for score, step in logged:
        if score.headline and (score.evaluation not in steps or score.rank > steps[score.evaluation][0]):
            steps[score.evaluation] = (score.rank, step)
    chosen = {evaluation: step for evaluation, (_, step) in steps.items()}
    return {(s.evaluation, s.scorer): (s, step) for s, step in logged if step == chosen.get(s.evaluation)}
