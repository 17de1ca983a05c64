"""The study's sweep files (docs/study.md) can be planned, also for a device that the planning machine lacks."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from scripts.write_held_out_text import CHARACTERS, text_of
from sdsbench.core.errors import ConfigError
from sdsbench.runs.configuration.choices import options
from sdsbench.sweeps import plan as plans
from sdsbench.sweeps.blocks import define
from sdsbench.sweeps.freeze import freeze
from sdsbench.sweeps.local_sweep import run_locally

STUDY = [name for name in options("sweep") if name.startswith("study/")]


@pytest.mark.parametrize("name", STUDY)
def test_cells_of_a_study_file_share_seeds_and_tuning_seeds_are_others(name: str) -> None:
    sweep = define([f"sweep={name}"])
    assert len({tuple(block["seed"]) for block in sweep.blocks}) == 1
    if sweep.tune is not None:
        assert not {str(seed) for seed in sweep.tune.seeds} & set(sweep.blocks[0]["seed"])
        assert sweep.tune.extend >= 3


def test_decoder_study_is_planned_without_a_gpu_and_refused_to_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    (tmp_path / "held_out.txt").write_text("A text.")
    words = ["sweep=study/decoder", "device=cuda", f"eval.text={tmp_path / 'held_out.txt'}", "seed=0,1"]
    manifest, texts = freeze(define(words), log=lambda _: None)
    plan, new = plans.write(tmp_path / "plan", manifest, texts)
    assert new == 3 * 4 * 2
    assert plan.manifest.placing["device"] == "cuda"
    with pytest.raises(ConfigError, match="No GPU was found"):
        run_locally(plan, {}, workers=4, gpus=None, deaths=5)


def test_held_out_text_has_each_sentence_once_and_a_limited_length(tmp_path: Path) -> None:
    (tmp_path / "glue/qnli").mkdir(parents=True)
    long = ["x" * 999 + str(number % 10) for number in range(100)]
    sentences = ["One.", "Two.", "One.", *long, *(f"{line}{number}" for number, line in enumerate(long))]
    pq.write_table(pa.table({"sentence": sentences}), tmp_path / "glue/qnli/validation.parquet")
    text = text_of(tmp_path)
    assert text.startswith("One.\nTwo.\nxxx")
    assert CHARACTERS - 1100 < len(text) <= CHARACTERS
    assert len(set(text.splitlines())) == len(text.splitlines())
