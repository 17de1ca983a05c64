"""The example package, installed beside sdsbench: runs, sweep with two workers, export, results; and by key."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from sdsbench.core.run_folder import read_record
from tests.conftest import ROOT

SMALL = [
    "model=micro", "task=word_reversal", "train.max_steps=6", "train.batch_size=4", "eval.limit=4", "device=cpu",
    "eval.untrained=false", "data.train_limit=32", "threads=1",
]  # fmt: skip


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder on Python's path with the installed package and the metadata that declares its entry point."""
    folder = tmp_path_factory.mktemp("site")
    subprocess.run(
        [
            sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--no-index",
            "--target", str(folder), str(ROOT / "examples" / "lora_extras"),
        ],
        check=True,
    )  # fmt: skip
    return folder


def run_sdsbench(site: Path, folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}:{site}", "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, "-m", "sdsbench", *words], cwd=folder, env=environment, capture_output=True, text=True
    )


def test_installed_plugin_runs_sweeps_exports_and_is_in_tables(site: Path, tmp_path: Path) -> None:
    single = run_sdsbench(site, tmp_path, "method=lora_one", *SMALL, "output_root=runs")
    assert single.returncode == 0, single.stderr
    assert "real set" not in single.stdout, "word_reversal is no stand-in for a published set"
    (path,) = (tmp_path / "runs").glob("*/record.json")
    record = read_record(path)
    assert (record.method, record.task, record.status) == ("lora_one", "word_reversal", "done")
    assert record.facts["gradient_rows"] == 8
    assert record.provenance is not None and record.provenance.packages["lora-extras"] == "0.1.0"
    assert {"method", "task", "data"} <= record.provenance.code.keys()

    plan = run_sdsbench(
        site, tmp_path, "plan", "method=lora,init_ab,lora_one", *SMALL, "output_root=runs", "--name", "p"
    )
    assert plan.returncode == 0, plan.stderr
    sweep = run_sdsbench(site, tmp_path, "sweep", "p", "--workers", "2")
    assert sweep.returncode == 0, sweep.stdout + sweep.stderr
    assert len(list((tmp_path / "runs").glob("*/record.json"))) == 3, "the sweep reuses the single run"

    table = run_sdsbench(site, tmp_path, "table", "grid", "--runs", "runs")
    assert table.returncode == 0, table.stderr
    assert "Init[AB], r 8" in table.stdout and "LoRA-One, r 8" in table.stdout, (
        "the titles that the plugin's classes declare"
    )
    assert "word_reversal" in table.stdout
    shows_table_claim_and_figure(site, tmp_path)
    export = run_sdsbench(site, tmp_path, "export", record.run_id[:8], "adapter", "--runs", "runs")
    assert export.returncode == 0, export.stderr
    assert (tmp_path / "adapter" / "adapter_model.safetensors").is_file()


def shows_table_claim_and_figure(site: Path, folder: Path) -> None:
    """The table, the claim and the figure of the package in the commands that show them; runs are in `folder`/runs."""
    for kind, name, own in (
        ("table", "extras/word_reversal", "lora_sb/table1"),
        ("claim", "lora_one_above_lora", "sds_above_lora_gsm8k"),
        ("figure", "extras/losses", "alignment"),
    ):
        listed = run_sdsbench(site, folder, "ls", kind)
        names = {line.split()[0] for line in listed.stdout.splitlines()}
        assert {name, own} <= names, listed.stderr
    table = run_sdsbench(site, folder, "table", "extras/word_reversal", "--runs", "runs")
    assert "Word reversal: LoRA and the methods of lora_extras" in table.stdout, table.stderr
    assert {"LoRA, r 8", "Init[AB], r 8", "LoRA-One, r 8"} == {
        line.split("|")[1].strip().replace("\\", "")
        for line in table.stdout.splitlines()
        if line.startswith("| ") and ", r 8" in line
    }
    verdict = run_sdsbench(site, folder, "verdict", "--runs", "runs")
    assert "| LoRA-One scores above LoRA at equal rank. | LoRA-One, arXiv 2502.01235 |" in verdict.stdout
    assert "| SDS-LoRA scores above LoRA at equal rank on GSM8K. |" in verdict.stdout, "beside the project's own"
    figures = run_sdsbench(site, folder, "figures", "--runs", "runs", "--out", "drawn")
    assert figures.returncode == 0 and "left out: no finished run has probes" in figures.stderr
    svg = (folder / "drawn" / "extras_losses.svg").read_text()
    assert "LoRA-One, r 8" in svg and (folder / "drawn" / "extras_losses.pdf").is_file()
    assert svg in (folder / "drawn" / "index.html").read_text()
    report = run_sdsbench(site, folder, "report", "--runs", "runs", "--output", "report")
    assert report.returncode == 0, report.stderr
    page = (folder / "report" / "index.html").read_text()
    assert "LoRA-One scores above LoRA at equal rank." in page and "figures/extras_losses.png" in page


def test_plugin_named_by_key_is_kept_in_the_plan_and_loaded_by_workers(tmp_path: Path) -> None:
    """Without installed metadata, the command names the module, the plan stores it and the workers load it."""
    source = tmp_path / "source"  # without the metadata that pip writes, whose entry point would register the plugin
    shutil.copytree(ROOT / "examples" / "lora_extras" / "lora_extras", source / "lora_extras")
    words = ["plugins=[lora_extras]", "method=init_ab", *SMALL, "output_root=runs"]
    plan = run_sdsbench(source, tmp_path, "plan", *words, "--name", "p")
    assert plan.returncode == 0, plan.stderr
    sweep = run_sdsbench(source, tmp_path, "sweep", "p")
    assert sweep.returncode == 0, sweep.stdout + sweep.stderr
    (path,) = (tmp_path / "runs").glob("*/record.json")
    provenance = read_record(path).provenance
    assert provenance is not None and "plugin:lora_extras" in provenance.code
    without = run_sdsbench(source, tmp_path, "figures", "extras/losses", "--runs", "runs")
    assert without.returncode == 2 and "extras/losses" in without.stderr
    figure = run_sdsbench(source, tmp_path, "figures", "extras/losses", "--runs", "runs", "--plugin", "lora_extras")
    assert figure.returncode == 0, figure.stderr
    assert "Init[AB], r 8" in (tmp_path / "results" / "figures" / "extras_losses.svg").read_text()
    again = run_sdsbench(source, tmp_path, *words)
    assert again.returncode == 0 and "found finished run" in again.stdout
    export = run_sdsbench(source, tmp_path, "export", path.parent.name, "adapter", "--runs", "runs")
    assert export.returncode == 0, export.stderr


def test_plugin_that_cannot_be_imported_is_one_message(tmp_path: Path) -> None:
    done = run_sdsbench(tmp_path, tmp_path, "plugins=[no_such_module]", "method=lora", *SMALL[:1])
    assert done.returncode == 2
    assert "plugins='no_such_module'" in done.stderr and "Is it installed" in done.stderr
    assert "Traceback" not in done.stderr
