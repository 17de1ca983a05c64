"""Text that a run prints and when, and machines with an ASCII terminal or without a writable home, cache or disk."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest

from sdsbench.__main__ import main
from sdsbench.cli import doctor
from sdsbench.core.disk_cache import cache_folder
from sdsbench.core.errors import Unavailable
from sdsbench.core.record import Losses
from sdsbench.runs.closing_summary import summary
from sdsbench.runs.configuration.compose import compose_run
from tests.conftest import ROOT
from tests.results.tables.fixtures import make_record, write_run

FAST = [
    "model=micro", "method=lora", "data.source=embedded", "data.train_limit=32", "train.max_steps=2", "eval.limit=2",
    "threads=1", "eval.untrained=true", "eval.untrained_limit=1", "task.max_new_tokens=4", "train.batch_size=2",
]  # fmt: skip


def run_python(*words: str, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **variables}
    return subprocess.run([sys.executable, *words], env=environment, text=True, capture_output=True, check=False)


def test_run_prints_its_configuration_before_torch_is_imported(tmp_path: Path) -> None:
    code = (
        "import sys; sys.modules['torch'] = None\n"  # importing torch raises ImportError from here on
        "from sdsbench.__main__ import main; main(sys.argv[1:])"
    )
    for first in ([], ["-m"]):
        done = run_python("-c", code, *first, *FAST, f"output_root={tmp_path}")
        lines = [line.split()[0] for line in done.stdout.splitlines() if line.startswith(" ")]
        assert lines == ["run", "method", "task", "data", "train"], done.stderr
        assert "import of torch halted" in done.stderr


def test_run_succeeds_where_only_its_folder_is_writable(tmp_path: Path) -> None:
    """With an ASCII terminal and without home and cache; the first line on stderr is the first evaluation."""
    nowhere = "/dev/null/nowhere"
    done = run_python(
        "-m", "sdsbench", *FAST, f"output_root={tmp_path}",
        PYTHONIOENCODING="ascii", HOME=nowhere, XDG_CACHE_HOME=nowhere, SDSBENCH_CACHE=nowhere, HF_HOME=nowhere,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr and done.stdout.isascii()
    first = done.stderr.splitlines()[0]
    assert first.startswith("evaluate gsm8k (untrained) 0/1 "), done.stderr
    words = " ".join(done.stdout.split())
    assert "untrained 0.00 (n 1)" in words and "trained 0.00 [0.00, 65.76] (n 2)" in words
    assert "[ ] 95 % Wilson interval" in words and "(first step) -> " in words and "(last of 2 steps)" in words
    assert f"folder {tmp_path}/" in words
    assert max(map(len, (line for line in done.stdout.splitlines() if " gsm8k " in line))) <= 80


@pytest.mark.parametrize("variable", ["SDSBENCH_CACHE", "XDG_CACHE_HOME", "HOME"])
def test_error_of_an_unwritable_cache_names_the_variable_to_set(variable: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SDSBENCH_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv(variable, "/dev/null/nowhere")
    with pytest.raises(Unavailable, match="Set SDSBENCH_CACHE"):
        cache_folder()


def test_untrained_model_is_evaluated_on_fewer_questions_by_default() -> None:
    """So that the first step does not wait for long."""
    found = compose_run([]).eval
    assert found.untrained and found.untrained_limit == 16 and found.limit == 64


@pytest.mark.parametrize("first", [[], ["-m"]], ids=["one run", "multirun"])
def test_output_folder_that_cannot_be_made_is_a_disk_error(
    first: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    for root in ("file/runs", "/dev/null/runs"):
        assert main([*first, *FAST, f"output_root={root}"]) == 4
        text = capsys.readouterr().err
        assert "the disk refuses" in text and text.count("sdsbench: ") == 1 and "Traceback" not in text


def test_multirun_restores_logging(tmp_path: Path) -> None:
    """Hydra makes the root logger print every library's INFO lines; later commands in a notebook must not."""
    before = logging.root.level, logging.root.handlers[:]
    (tmp_path / "file").touch()
    assert main(["-m", *FAST, f"output_root={tmp_path / 'file' / 'runs'}"]) == 4
    assert (logging.root.level, logging.root.handlers) == before


def test_ls_names_plugins(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["ls", "plugins"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "plugin:" and any(line.split()[:2] == ["sdsbench.synthetic", "from"] for line in lines)


def test_doctor_reports_cache_gpus_slurm_and_tracking(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SDSBENCH_CACHE", str(tmp_path))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,3")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("PATH", str(tmp_path))  # no sbatch
    (tmp_path / "weights").write_bytes(b"0" * 10**8)
    found = dict(doctor._machine())
    assert found["cache folder"].startswith(f"{tmp_path}: 0.1 GB used, ")
    assert found["GPUs"] == "0, 3" and found["SLURM"] == "no sbatch"
    assert "GB free" in found["results"]
    assert found["W&B"].startswith(("offline", "not installed"))
    (tmp_path / "sinfo").write_text("#!/bin/sh\necho no controller >&2; exit 1\n")
    (tmp_path / "sbatch").write_text("#!/bin/sh\n")
    for name in ("sinfo", "sbatch"):
        (tmp_path / name).chmod(0o755)
    assert doctor._slurm() == "sbatch found; no controller"
    monkeypatch.setenv("SDSBENCH_CACHE", "/dev/null/nowhere")
    assert "Set SDSBENCH_CACHE" in doctor._cache()


def test_message_is_wrapped_to_the_width_of_the_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["show", "model=micro", "method=lora", "train.learning_rate=1e-3", "train.max_stepps=7"]
    assert main(words) == 2
    message = capsys.readouterr().err
    for name, value in {"TTY_COMPATIBLE": "1", "COLUMNS": "80", "TERM": "xterm"}.items():
        monkeypatch.setenv(name, value)
    assert main(words) == 2
    lines = capsys.readouterr().err.splitlines()
    assert max(map(len, lines)) <= 80 < max(map(len, message.splitlines()))
    assert " ".join(message.split()) == " ".join(" ".join(lines).split()), "broken between words"


def test_closing_summary_fits_the_terminal() -> None:
    """One line for each of three stages and two scorers."""
    record = make_record("preconditioned_lora", 0, {"commonsense/social_i_qa": 0.273}, task="commonsense", n=1954)
    (score,) = record.scores
    before = score.model_copy(update={"stage": "untrained", "value": 0.0, "stderr": 0.0})
    halfway = score.model_copy(update={"stage": "along", "along": 0.25, "stderr": 0.011, "headline": False})
    record.scores = [before, score.model_copy(update={"scorer": "likelihood"}), score, halfway]
    lines = summary(record, Path("results/runs") / record.run_id).splitlines()
    assert max(map(len, lines)) <= 80
    assert [line.split() for line in lines[1:5]] == [
        ["commonsense/social_i_qa", "flexible", "untrained", "0.00", "[0.00,", "0.20]", "(n", "1954)", "*"],
        ["trained", "27.30", "(n", "1954)", "*"],
        ["along", "0.25", "27.30", "±", "1.10", "(n", "1954)"],
        ["commonsense/social_i_qa", "likelihood", "trained", "27.30", "(n", "1954)", "*"],
    ]
    assert lines[5:8] == [
        "  ±              standard error over the n questions; in tables 95 % over seeds",
        "  [ ]            95 % Wilson interval, as all or none of the answers are right",
        "  *              the scorer that tables use for this evaluation",
    ]
    assert lines[-1] == f"  folder         results/runs/{record.run_id}"


@pytest.mark.parametrize(
    ("steps", "text"), [(5, "1.5000 (last of 5 steps)"), (40, "1.5000 (mean of the last 4 of 40 steps)")]
)
def test_closing_summary_says_which_losses_it_shows(steps: int, text: str) -> None:
    record = make_record("lora", 0, {"gsm8k": 0.5})
    record.losses = Losses(first=4.0, last=1.0, tail_mean=1.5, steps=steps)
    (line,) = (line for line in summary(record, Path("runs/x")).splitlines() if line.startswith("  loss "))
    assert line == f"  loss           4.0000 (first step) -> {text}" and len(line) <= 80


LONG = "# The first line ends in a comma,\n# which is within a sentence.\n#   sdsbench plan sweep=mine\nname: mine\n"


def test_ls_shows_whole_sentences_within_the_terminal(
    tmp_path: Path, terminal: None, capsys: pytest.CaptureFixture[str]
) -> None:
    from sdsbench.cli.ls import _first_sentence

    comments = [line.removeprefix("#") for line in LONG.splitlines() if line.startswith("#")]
    assert _first_sentence(comments) == "The first line ends in a comma, which is within a sentence."
    for group in ("sweep", "table", "claim"):
        assert main(["ls", group]) == 0
        assert max(map(len, capsys.readouterr().out.splitlines())) <= 80


def test_lists_of_plans_and_traces_are_wrapped_between_words(
    tmp_path: Path, terminal: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    record = make_record("lora", 0, {"gsm8k": 0.5})
    write_run(tmp_path / "runs", record)
    assert main(["trace", record.run_id, "--runs", "runs"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith(f"run {record.run_id}") and max(map(len, lines)) <= 80
    assert main(["status"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines == ["no plan in results/plans; `sdsbench plan` makes one"]


def test_encoder_takes_an(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", "model=micro", "task=glue/rte"]) == 2
    words = " ".join(capsys.readouterr().err.split())
    assert "an encoder model for task=glue/rte" in words and "micro is a decoder model" in words


def test_figures_name_the_folders_without_probes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_run(tmp_path / "runs", make_record("lora", 0, {"gsm8k": 0.5}))
    assert main(["figures", "--runs", str(tmp_path / "runs"), "--out", str(tmp_path / "out")]) == 3
    words = " ".join(capsys.readouterr().err.split())
    assert f"sdsbench: {tmp_path / 'runs'}: no finished run has probes" in words
