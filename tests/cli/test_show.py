"""`sdsbench show`: the settings of a protocol compared with those of its paper."""

from __future__ import annotations

import pytest

from sdsbench.__main__ import main


def comparison_table(capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, list[str]]:
    """The printed table as setting -> [run's value, paper's value, whether equal]."""
    assert main(["show", *words, "data.source=embedded"]) == 0
    table = capsys.readouterr().out.split(" beside ")[1].split("\n\n")[0].splitlines()[2:]
    cells = [[cell for cell in line.strip().split("  ") if cell] for line in table]
    return {row[0]: [cell.strip() for cell in row[1:]] for row in cells if row}


def test_show_compares_settings_with_the_paper(capsys: pytest.CaptureFixture[str]) -> None:
    rows = comparison_table(capsys, "protocol=lora_sb/arithmetic", "method=lora", "train.max_length=256")
    assert rows["max length"] == ["256", "512", "NO"]
    assert rows["warm-up"] == ["0.02", "2 %", "yes"]
    assert rows["batch"] == ["32", "32", "yes"]
    assert rows["precision"] == ["bfloat16", "bf16", "yes"]
    assert rows["targets"][1:] == ["q k v o gate up down", "yes"]
    assert rows["models"] == ["Mistral-7B, Gemma-2 9B"], "no single setting: shown, not compared"


@pytest.mark.parametrize(
    "protocol", ("lora_sb/arithmetic", "lora_sb/commonsense", "lora_sb/glue", "sds_lora/math", "sds_lora/commonsense")
)
def test_protocol_has_the_settings_of_its_paper(protocol: str, capsys: pytest.CaptureFixture[str]) -> None:
    task = ["task=glue/rte"] if protocol.endswith("glue") else []
    rows = comparison_table(capsys, f"protocol={protocol}", "method=lora", *task)
    assert sum(row[-1] == "yes" for row in rows.values()) >= 6
    assert not [key for key, row in rows.items() if row[-1] == "NO"]
