"""The paragraph on the setup and the BibTeX entries: they state what the records hold, and nothing else."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from sdsbench.__main__ import main
from sdsbench.core.errors import Unavailable
from sdsbench.data import catalogue
from sdsbench.methods.base import METHODS
from sdsbench.results.paper_text.bibtex import _entry, bibtex, entries
from sdsbench.results.paper_text.paragraph import paragraphs
from sdsbench.results.tables.build import build
from sdsbench.results.tables.grid import grid as grid_of
from sdsbench.results.tables.loaded_runs import load
from sdsbench.results.tables.render.markdown import render
from sdsbench.runs.configuration.choices import options
from tests.results.tables.fixtures import make_record, tuned, write_run


@pytest.fixture
def runs_folder(tmp_path: Path) -> Path:
    """Three tuned runs of SDS-LoRA and one of LoRA that ran out of memory."""
    for seed in range(3):
        train = {"lr": 2e-3, "epochs": 1.0, "batch_size": 32, "optimizer": "adamw"}
        chosen = tuned(2e-3, [1e-3, 2e-3, 4e-3], seeds=[9, 10], declared=[1e-3, 2e-3], extend=1)
        record = make_record("sds_lora", seed, {"gsm8k": 0.5}, lr=2e-3, tuning=chosen, config={"train": train})
        write_run(tmp_path / "runs", record)
    write_run(tmp_path / "runs", make_record("lora", 0, status="oom"))
    return tmp_path / "runs"


def test_paragraph_states_the_setup_of_the_records(runs_folder: Path) -> None:
    (text,) = paragraphs(load(runs_folder)[0])
    for words in (
        "We fine-tune micro", "gsm8k (generated stand-ins for the real rows, 200 training rows)",
        "SDS-LoRA, r 8 (alpha 16)", "20 optimizer steps", "effective batch of 32",
        "the best of 0.001, 0.002, and of up to 1 more beyond an end that is best, by",
        "over 2 seeds (9, 10): 6 runs a method", "chosen: 0.002 for SDS-LoRA, r 8", "on 200 questions",
        "after training, with 3 seeds (0, 1, 2)", "cpu: test (1 thread)", "torch 2.13.0", "abc1234",
    ):  # fmt: skip
        assert words in text, words
    assert "weight decay" not in text, "the records do not hold it"


def test_variants_are_named_and_one_tuning_rule_with_other_budgets_is_stated_once(tmp_path: Path) -> None:
    for method, form, grid in (
        ("sds_lora", {"variant": "sds"}, [1e-3, 2e-3]), ("sds_lora", {"variant": "reset_lora"}, [1e-3, 2e-3, 4e-3]),
        ("lora", {}, [1e-3, 2e-3]),
    ):  # fmt: skip
        for seed in range(20):
            config = {"method": {"name": method, "rank": 8, **form}, "train": {"lr": 1e-3, "batch_size": 8}}
            chosen = tuned(1e-3, grid, seeds=[99], declared=[1e-3, 2e-3], extend=1)
            write_run(tmp_path, make_record(method, seed, {"gsm8k": 0.5}, tuning=chosen, config=config))
    runs = load(tmp_path)[0]
    (text,) = paragraphs(runs)
    assert "Methods: LoRA, r 8 (alpha 16); LoRA with optimizer reset, r 8 (alpha 16); SDS-LoRA, r 8 (alpha 16)." in text
    assert text.count("learning rate of each method is the best of") == 1 and ": 2 to 3 runs a method" in text
    assert "20 seeds (0 to 19)" in text
    foot = render(build(grid_of(runs), runs))
    assert foot.count("train.lr among") == 1 and ": 2 to 3 runs a method" in foot


def test_tests_are_stated_only_where_two_methods_have_the_seeds(tmp_path: Path) -> None:
    """Three seeds in all are no three seeds of a method; paired methods need common ones."""
    untested = "Intervals are 95 % t-intervals over seeds. Nothing is tested: no two methods have 3 "
    for place, family, of_dora, words in (
        (
            "alone",
            "decoder",
            (),
            f"with 3 seeds (0, 1, 2). {untested}seeds.",
        ),
        (
            "few",
            "decoder",
            (3, 4),
            f"with 2 to 3 seeds a method. {untested}",
        ),
        ("other", "encoder", (2, 3, 4), f"{untested}common seeds."),
        ("tested", "decoder", (2, 3, 4), "differences between methods are tested not paired over seeds"),
        ("paired", "encoder", (0, 1, 2), "differences between methods are tested paired over seeds"),
    ):
        for method, seeds in (("lora", (0, 1, 2)), ("dora", of_dora)):
            for seed in seeds:
                write_run(tmp_path / place, make_record(method, seed, {"gsm8k": 0.5}, family=family))
        (text,) = paragraphs(load(tmp_path / place)[0])
        assert words in text, place
        assert ("tested" in text.replace("Nothing is tested", "")) == (place in ("tested", "paired"))


def test_values_and_sources_are_not_said_of_runs_that_have_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each run has one number of steps and one rate; the best epoch is no other word for the last step."""
    record = make_record("lora", 0, {"gsm8k": 0.5}, lr=1e-3, dirty=True)
    best = record.scores[0].model_copy(update={"stage": "best_epoch"})
    write_run(tmp_path, record.model_copy(update={"scores": [record.scores[0], best]}))
    longer = make_record("lora", 1, {"gsm8k": 0.5}, lr=2e-3)
    assert longer.losses is not None
    longer.losses.steps = 80
    write_run(tmp_path, longer)
    (text,) = paragraphs(load(tmp_path)[0])
    for words in (
        "20 or 80 optimizer steps", "Learning rate 0.001 or 0.002, not tuned",
        "after training and after the best epoch", "commit abc1234 with changes that were not committed",
    ):  # fmt: skip
        assert words in text, words
    only = replace(catalogue.get("gsm8k"), only_generated=True)
    monkeypatch.setattr(catalogue, "get", lambda _: only)
    assert "gsm8k (generated, 200 training rows)" in paragraphs(load(tmp_path)[0])[0]
    monkeypatch.setattr(catalogue, "get", lambda _: replace(only, own=True))
    own = make_record("lora", 0, {"gsm8k": 0.5}, source="local")
    write_run(tmp_path / "own", own)
    assert "gsm8k (own files, 200 training rows)" in paragraphs(load(tmp_path / "own")[0])[0]


def test_paragraph_without_a_finished_run_is_refused(tmp_path: Path) -> None:
    write_run(tmp_path, make_record("lora", 0, status="oom"))
    with pytest.raises(Unavailable, match="no run is finished"):
        paragraphs(load(tmp_path)[0])


def test_bibtex_cites_methods_and_data_and_names_models_without_reference(runs_folder: Path) -> None:
    text = bibtex(load(runs_folder)[0])
    assert re.findall(r"^@\w+\{(\w+),", text, re.MULTILINE) == ["cobbe2021gsm8k", "hu2021lora", "sdslora2026"]
    assert "% no reference is known for model micro" in text
    assert text.count("{") == text.count("}")


def test_every_shipped_method_data_set_and_model_has_a_reference() -> None:
    """Exceptions are this project's own models, and the models and data that a user names."""
    names = [f"method:{name}" for name in METHODS.names() if METHODS.lookup(name)[0].__dict__.get("arxiv")]
    names += [f"data:{name}" for name in catalogue.names()] + [f"model:{name}" for name in options("model")]
    missing = {name for name in names if not _entry(name)}
    without_reference = {"model:hub", "model:local", "model:micro", "model:vit_micro", "data:pairs", "data:labels"}
    assert missing == without_reference, "add them to paper_text/references.bib"
    assert all("year" in entry for entry in entries().values())


def test_table_command_writes_paragraph_and_bibtex(
    runs_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["table", "bibtex", "--runs", str(runs_folder)]) == 0
    assert "@misc{hu2021lora," in capsys.readouterr().out
    assert main(["table", "paragraph", "--runs", str(runs_folder), "--output", str(tmp_path / "out")]) == 0
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"paragraph.md", "paragraph.tex"}
    assert main(["table", "paragraph", "--runs", str(runs_folder), "--format", "csv"]) == 2
    assert "accepted: markdown, latex" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["paragraph", "bibtex"])
def test_records_that_the_text_leaves_out_are_named(
    name: str, runs_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = sorted(runs_folder.glob("*/record.json"))[0]
    path.write_text("{}")
    assert main(["table", name, "--runs", str(runs_folder)]) == 0
    assert f"left out: {path}" in capsys.readouterr().err
