"""data.source=auto: generated data stands in only under this project's own protocol, and the log says so."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from sdsbench.__main__ import main
from sdsbench.core.errors import Unavailable
from sdsbench.data import catalogue, sources
from sdsbench.runs.banner import announcement
from sdsbench.runs.configuration.compose import compose_run, options
from sdsbench.runs.configuration.identity import run_id
from sdsbench.runs.data_source import require_data, resolve_source
from sdsbench.runs.execute import execute
from sdsbench.sweeps.blocks import define
from sdsbench.sweeps.freeze import freeze

PAPERS = sorted(set(options("protocol")) - {"quick"})


@pytest.fixture
def no_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "hub_reachable", lambda: False)


def test_auto_prefers_the_folder_then_the_hub_then_generated_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert resolve_source(compose_run([f"data.root={tmp_path}"]))[0].data.source == "local"
    monkeypatch.setattr(sources, "hub_reachable", lambda: True)
    assert resolve_source(compose_run([]))[0].data.source == "hub"
    monkeypatch.setattr(sources, "hub_reachable", lambda: False)
    config, why = resolve_source(compose_run([]))
    assert config.data.source == "embedded" and "not the real set" in why


@pytest.mark.parametrize("words", [[], ["data.source=embedded"]], ids=["auto", "asked for"])
def test_announcement_says_once_that_rows_are_generated(words: list[str], no_hub: None) -> None:
    text = " ".join(announcement(compose_run(["model=micro", *words])).split())
    assert text.count("generated") == 1 and text.count("not the real set") == 1


def test_set_that_is_only_generated_is_no_stand_in(no_hub: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the example plugin's word_reversal."""
    only = dataclasses.replace(catalogue.get("gsm8k"), only_generated=True)
    monkeypatch.setattr(catalogue, "get", lambda _: only)
    text = " ".join(announcement(compose_run(["model=micro"])).split())
    assert "generated, as this data always is" in text and "real set" not in text
    assert "generated, as this data always is" in sources.source_options(only)


@pytest.mark.parametrize("protocol", PAPERS)
def test_protocol_of_a_paper_never_falls_back_to_generated_data(protocol: str, no_hub: None, tmp_path: Path) -> None:
    task = {"lora_sb/glue": ["task=glue/rte"], "sds_lora/vision": ["task=vision/dtd"]}.get(protocol, [])
    words = [f"protocol={protocol}", *task, f"output_root={tmp_path}"]
    config = compose_run(words)
    for attempt in (
        lambda: resolve_source(config),
        lambda: execute(config),
        lambda: freeze(define([*words, "seed=0"])),
    ):
        with pytest.raises(Unavailable, match=r"data\.source=auto: .*data\.source=local data\.root=FOLDER") as caught:
            attempt()
        assert f"protocol={protocol}" in str(caught.value) and caught.value.exit_code == 3
    assert not list(tmp_path.iterdir()), "a refused run leaves no file"
    assert resolve_source(compose_run([*words, "data.source=embedded"]))[0].data.source == "embedded", "on request"


def test_refusal_names_id_revision_and_folder_of_every_data_set(no_hub: None) -> None:
    with pytest.raises(Unavailable) as caught:
        resolve_source(compose_run(["protocol=lora_sb/arithmetic"]))
    for part in (
        "meta-math/MetaMathQA, revision aa4f34d3d2d3231299b5b03d9b3e5a20da45aa18", "metamathqa/<split>.parquet",
        "openai/gsm8k main, revision 740312add", "gsm8k/<split>.parquet", "hendrycks_math/<split>.parquet",
    ):  # fmt: skip
        assert part in str(caught.value)
    with pytest.raises(Unavailable, match="nyu-mll/glue cola"):
        resolve_source(compose_run(["protocol=lora_sb/glue", "task=glue"]))


def test_show_prints_the_run_id_with_the_resolved_source(no_hub: None, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", "model=micro"]) == 0
    printed = capsys.readouterr().out
    named = run_id(compose_run(["model=micro", "data.source=embedded"]))
    assert f"run id {named} (data.source=embedded: no data.root and no hub" in printed
    assert main(["show", "protocol=lora_sb/glue", "task=glue/rte"]) == 0
    assert "no run id: data.source=auto" in capsys.readouterr().out


def test_plan_logs_the_resolved_source_and_the_reason(no_hub: None, tmp_path: Path) -> None:
    logged: list[str] = []
    freeze(define(["model=micro", "seed=0,1"]), log=logged.append)
    assert len(logged) == 1 and logged[0].startswith("data.source=embedded: no data.root and no hub")


def test_split_that_a_source_lacks_is_refused_when_planning(monkeypatch: pytest.MonkeyPatch, data_root: Path) -> None:
    """The commonsense sets are not on the hub; the local folder lacks PIQA's training rows, which tuning needs."""
    with pytest.raises(Unavailable, match="data set boolq: the hub source has no split 'test'"):
        freeze(define(["model=micro", "task=commonsense", "data.source=hub", "seed=0"]))
    local = ["model=micro", "task=commonsense", f"data.root={data_root}", "task.train_set=commonsense_170k_sample"]
    require_data(resolve_source(compose_run(local))[0])
    with pytest.raises(Unavailable, match=r"data set piqa: no file commonsense/piqa/train\.parquet"):
        freeze(define([*local, "seed=0", "eval.split=validation"]))
