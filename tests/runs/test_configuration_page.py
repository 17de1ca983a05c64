"""docs/configuration.md equals the output of its script and states which keys are part of a run's id."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

from sdsbench.core.leaves import leaves
from sdsbench.runs.configuration.compose import compose_run

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "configuration.md").read_text()


@pytest.fixture(scope="module")
def script() -> ModuleType:
    """scripts/write_configuration.py as a module."""
    spec = importlib.util.spec_from_file_location("write_configuration", ROOT / "scripts" / "write_configuration.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_page_equals_the_output_of_the_script(script: ModuleType) -> None:
    assert script.document() == PAGE, "run python scripts/write_configuration.py"


@pytest.mark.parametrize("words", [["method=sds_lora", "task=gsm8k"], ["method=lora_xs", "task=metamath"]], ids=str)
def test_every_key_of_a_run_is_on_the_page(words: list[str]) -> None:
    tree = compose_run(["model=micro", "data.source=embedded", *words]).model_dump()
    tree["protocol"] |= dict.fromkeys(("paper", "code", "ours"))
    assert [key for key, _ in leaves(tree) if f"| `{key}` |" not in PAGE] == []


@pytest.mark.parametrize(
    ("key", "accepted", "mark"),
    [
        ("train.epochs", "a number above 0", "names where max_steps is null"),
        ("train.head_lr", "a number above 0, or null", "names; not where the task needs no new head"),
        ("data.order", "random or first", "names where train_limit is given"),
        ("eval.batch_size", "a whole number from 1", "places, costs"),
        ("protocol.source", "a text", "inert"),
        ("model.revision", "a text, or null", "names where source is not folder"),
        ("method.svd_iterations", "a whole number from 0 to 1000", "names where svd is fast"),
        ("method.betas", "two numbers from 0 to below 1", "names where mode is full"),
        ("task.scorers", "a list of values, each paper, lora_sb, likelihood, at least one", "names"),
    ],
)
def test_line_of_a_key_states_accepted_values_and_its_part_in_the_run_id(key: str, accepted: str, mark: str) -> None:
    lines = [line.split(" | ") for line in PAGE.splitlines() if line.startswith(f"| `{key}` |")]
    assert (accepted, mark) in [(line[1], line[3]) for line in lines]
