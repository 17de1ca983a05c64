"""`sdsbench show`: a protocol beside its paper, setting by setting."""

from __future__ import annotations

import pytest

from sdsbench.__main__ import main


def shown(capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, list[str]]:
    """key -> [ours, paper, equal] of the table, as printed."""
    assert main(["show", *words, "data.source=embedded"]) == 0
    table = capsys.readouterr().out.split(" beside ")[1].split("\n\n")[0].splitlines()[2:]
    cells = [[cell for cell in line.strip().split("  ") if cell] for line in table]
    return {row[0]: [cell.strip() for cell in row[1:]] for row in cells if row}


def test_ours_and_the_papers_value_stand_side_by_side(capsys: pytest.CaptureFixture[str]) -> None:
    rows = shown(capsys, "protocol=lora_sb/arithmetic", "method=lora", "train.max_length=256")
    assert rows["max length"] == ["256", "512", "NO"]
    assert rows["warm-up"] == ["0.02", "2 %", "yes"]
    assert rows["batch"] == ["32", "32", "yes"]
    assert rows["precision"] == ["bfloat16", "bf16", "yes"]
    assert rows["targets"][1:] == ["q k v o gate up down", "yes"]
    assert rows["models"] == ["Mistral-7B, Gemma-2 9B"], "no single setting: shown, not compared"


@pytest.mark.parametrize(
    "protocol", ("lora_sb/arithmetic", "lora_sb/commonsense", "lora_sb/glue", "sds_lora/math", "sds_lora/commonsense")
)
def test_protocols_keep_to_their_papers(protocol: str, capsys: pytest.CaptureFixture[str]) -> None:
    task = ["task=glue/rte"] if protocol.endswith("glue") else []
    rows = shown(capsys, f"protocol={protocol}", "method=lora", *task)
    assert sum(row[-1] == "yes" for row in rows.values()) >= 6
    assert not [key for key, row in rows.items() if row[-1] == "NO"]
