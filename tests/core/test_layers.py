"""The drawing of the layers is the contract that is checked, and every folder of the package stands in it."""

from __future__ import annotations

import configparser
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]


def contract() -> list[set[str]]:
    """The layers of .importlinter, highest first."""
    parser = configparser.ConfigParser()
    parser.read(ROOT / ".importlinter")
    lines = parser["importlinter:contract:layers"]["layers"].split("\n")
    return [set(re.findall(r"\w+", line)) for line in lines if line.strip()]


def test_the_drawing_shows_the_contract() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text()
    drawing = text.split("<!-- layers: begin")[1].split("```")[1]
    lines = [line for line in drawing.splitlines() if line.strip() and line.strip() != "|"]
    drawn = [set(re.findall(r"\w+", re.split(r"\s{3,}", line)[0])) for line in lines]
    assert drawn == contract()


def test_every_folder_is_in_a_layer() -> None:
    folders = {path.parent.name for path in (ROOT / "sdsbench").glob("*/__init__.py")}
    assert folders | {"__main__"} == set().union(*contract())
