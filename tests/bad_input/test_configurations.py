"""Overrides, sweep files and commands that are wrong are refused with one message, and nothing is written."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.bad_input.damage import assert_refused

BASE = ["model=micro", "method=lora"]

OVERRIDES = [  # a wrong override, and a part of the message that it causes
    ("method=lroa", "Did you mean 'lora'?"),
    ("model=", "model"),
    ("method=lora,", "command line"),
    ("model=micro,minilm", "several runs"),
    ("method.rnak=8", "Did you mean 'method.rank'?"),
    ("rank=8", "Did you mean 'method.rank'?"),
    ("method.rank=eight", "a whole number"),
    ("method.rank=0", "a whole number from 1"),
    ("method.rank=-1", "a whole number from 1"),
    ("method.rank=8.5", "a whole number"),
    ("method.rank=true", "a whole number"),
    ("method.rank=null", "a whole number"),
    ("method.rank=99999999999999999999999", "method.rank"),
    ("method.rank=9999999999", "At most 4,294,967,295."),
    ("task.beams=1000000000000000000000", "At most 4,294,967,295."),
    ("threads=1000000000000", "a whole number from 0 to 4096"),
    ("method.alpha=1e300", "At most 1e+30."),
    ("method.alpha=nan", "a number above 0"),
    ("method.alpha=-inf", "a number above 0"),
    ("method.dropout=1.5", "0 to below 1"),
    ("method.targets=[]", "method.targets"),
    ("method.targets=[qproj]", "Did you mean 'q_proj'?"),
    ("method.targets=q_proj", "a list"),
    ("train.lr=0", "a number above 0"),
    ("train.lr=nan", "a number above 0"),
    ("train.lr=inf", "train.lr"),
    ("train.lr=1e400", "train.lr"),
    ("train.lr=", "train.lr"),
    ("train.epochs=inf", "train.epochs"),
    ("train.max_steps=0", "a whole number from 1"),
    ("train.batch_size=0", "a whole number from 1"),
    ("train.betas=[0.9]", "train.betas"),
    ("train.betas=[0.9,1.5]", "train.betas"),
    ("train.schedule=cosin", "cosine"),
    ("train.warmup_ratio=2", "train.warmup_ratio"),
    ("train.weight_decay=-1", "train.weight_decay"),
    ("eval.limit=0", "eval.limit"),
    ("eval.split=tset", "eval.split"),
    ("data.source=locla", "hub, local, embedded"),
    ("data.source=local", "data.root"),
    ("data.root='a\nb'", "without control characters"),
    ("output_root='a\x1bb'", "without control characters"),
    ("data.train_limit=-5", "data.train_limit"),
    ("seed=-1", "a whole number from 0"),
    ("seed=1.5", "a whole number"),
    ("threads=-2", "threads"),
    ("device=tpu", "cpu, cuda"),
    ("dtype=float16", "float32, bfloat16"),
    ("task=gsm9k", "Did you mean 'gsm8k'?"),
    ("task=glue/rte", "encoder"),
    ("task.train_set=gsm8kk", "Did you mean 'gsm8k'?"),
    ("+new.key=1", "Keys cannot be added"),
    ("~method.rank", "Keys cannot be added or deleted"),
    ("method.rank", "key=value"),
    ("=8", "a key of conf/"),
    ("method.rank=${nowhere.to.be.found}", "${"),
    ("ключ=значение", "ключ"),
    ("method=лора", "лора"),
    ("method=\u202elora", "method"),
    ("train.lr=" + "9" * 5000, "train.lr"),
    ("train=fast", "one key below it"),
    ("model=../../etc/passwd", "model"),
]


@pytest.mark.parametrize(("word", "expected"), OVERRIDES, ids=[word[:40] for word, _ in OVERRIDES])
def test_wrong_override_is_refused_before_anything_is_written(
    word: str, expected: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert_refused(capsys, [*BASE, f"output_root={tmp_path / 'runs'}", word], 2, expected)
    assert not (tmp_path / "runs").exists()


SWEEP_FILES = [  # the text of a sweep file, and a part of the message
    ("blocks: []", "one block or more"),
    ("blocks: [{axis: {seed: [0]}}]", "Did you mean 'axes'?"),
    ("blocks: [{axes: {seed: []}}]", "value"),
    ("blocks: [{axes: {seed: 3}}]", "axes"),
    ("blocks: [{axes: {seed: [0, 0]}}]", "each value once"),
    ("blocks: [{axes: {threads: [1, 2]}}]", "threads"),
    ("blocks: [{fixed: ['seed=0,1']}]", "belong under axes"),
    ("blocks: [{fixed: [3]}]", "a list of overrides"),
    ("blocks: [{axes: {method: [lora, lroa]}}]", "Did you mean 'lora'?"),
    ("blocks: 7", "blocks"),
    ("", "keys name"),
    ("[1, 2]", "keys name"),
    ("blocks: [", "a YAML file"),
    ("\x00", "a YAML file"),
    ("description: 2026-13-01", "a YAML file"),
    ("blocks: [{axes: {seed: [" + "9" * 5000 + "]}}]", "sweep=s"),
    ("blocks: [{axes: {seed: [2026-99-99]}}]", "a YAML file"),
    ("block: [{axes: {seed: [0]}}]", "blocks"),
    ("blocks: [{axes: {seed: [0]}}]\ntune: {key: train.lr, grid: [1e-3], seeds: [9]}", "two different numbers"),
    ("blocks: [{axes: {seed: [0]}}]\ntune: {key: train.lr, grid: [a, b], seeds: [9]}", "tune.grid"),
    ("blocks: [{axes: {seed: [0]}}]\ntune: {key: train.lr, grid: [1e-3, 2e-3], seeds: [0]}", "fresh"),
    ("blocks: [{axes: {seed: [0]}}]\ntune: {key: train.lr, grid: [1e-3, .nan], seeds: [9]}", "tune.grid"),
    ("blocks: [{axes: {seed: [0], train.lr: [1]}}]\ntune: {key: train.lr, grid: [1, 2], seeds: [9]}", "tune chooses"),
    ("blocks: [{axes: {method: [lora]}}]\ntune: {key: train.lr, grid: [1, 2], seeds: [9]}", "evaluation_seeds_axis"),
    ("blocks: [{axes: {seed: [0]}}]\ntune: {kye: train.lr, grid: [1, 2], seeds: [9]}", "tune"),
]


@pytest.mark.parametrize(("text", "expected"), SWEEP_FILES, ids=[text[:60] for text, _ in SWEEP_FILES])
def test_wrong_sweep_file_is_refused_and_no_plan_is_written(
    text: str, expected: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "sweep").mkdir()
    (tmp_path / "sweep" / "s.yaml").write_text(text)
    words = ["plan", "sweep=s", "model=micro", "--config-dir", str(tmp_path), "--folder", str(tmp_path / "plan")]
    assert_refused(capsys, words, 2, expected)
    assert not (tmp_path / "plan").exists()


COMMANDS = [
    (["plan", "sweep=nowhere"], 2, "sweep"),
    (["plan", "threads=1,2"], 2, "one value"),
    (["sweep", "nowhere"], 3, "no such folder"),
    (["status", ""], 3, "no such folder"),
    (["submit", "\u2603"], 3, "no such folder"),
    (["swep"], 2, "Did you mean 'sweep'?"),
]


@pytest.mark.parametrize(("words", "code", "expected"), COMMANDS, ids=lambda value: str(value)[:40])
def test_wrong_command_is_refused_and_writes_nothing(
    words: list[str],
    code: int,
    expected: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert_refused(capsys, words, code, expected)
    assert list(tmp_path.iterdir()) == []
