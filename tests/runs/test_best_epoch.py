"""Best and last epoch side by side: evaluated after every epoch, the best kept with its samples."""

from __future__ import annotations

from pathlib import Path

from sdsbench.core import samples
from sdsbench.runs.configuration.compose import compose_run
from sdsbench.runs.execute import execute
from tests.tools import QUIET

FAST = [
    "model=vit_micro", "task=vtab/dtd", "method=lora", "data.source=embedded", "data.train_limit=40",
    "train.batch_size=8", "train.max_steps=null", "train.epochs=3", "train.lr=5e-3", "eval.limit=60",
    "eval.untrained=false", "threads=1",
]  # fmt: skip


def test_best_epoch_is_the_best_and_its_samples_are_kept(tmp_path: Path) -> None:
    record = execute(compose_run([*FAST, "eval.each_epoch=true", f"output_root={tmp_path}"]), QUIET)
    scores = {(s.stage, s.scorer): s.value for s in record.scores}
    headline = next(s.scorer for s in record.scores if s.headline)
    assert scores["best_epoch", headline] >= scores["trained", headline]
    assert 1 <= record.facts["best_epoch.vtab/dtd"] <= 3
    kept = samples.read(samples.path_of(tmp_path / record.run_id, "vtab/dtd", "best_epoch"))
    assert sum(row["scores"][headline] for row in kept) / len(kept) == scores["best_epoch", headline]

    plain = execute(compose_run([*FAST, f"output_root={tmp_path}"]), QUIET)
    assert {s.stage for s in plain.scores} == {"trained"}
    assert plain.losses == record.losses, "evaluating between epochs changes nothing"
