"""The drawing in docs/architecture.md equals the import contract, which names every folder of the package."""

from __future__ import annotations

import configparser
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]


def layers_of_contract() -> list[set[str]]:
    """The layers of .importlinter, highest first."""
    parser = configparser.ConfigParser()
    parser.read(ROOT / ".importlinter")
    lines = parser["importlinter:contract:layers"]["layers"].split("\n")
    return [set(re.findall(r"\w+", line)) for line in lines if line.strip()]


def test_drawing_shows_the_layers_of_the_contract() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text()
    drawing = text.split("<!-- layers: begin")[1].split("```")[1]
    lines = [line for line in drawing.splitlines() if line.strip() and line.strip() != "|"]
    drawn_layers = [set(re.findall(r"\w+", re.split(r"\s{3,}", line)[0])) for line in lines]
    assert drawn_layers == layers_of_contract()


def test_every_folder_is_in_a_layer() -> None:
    folders = {path.parent.name for path in (ROOT / "sdsbench").glob("*/__init__.py")}
    assert folders | {"__main__"} == set().union(*layers_of_contract())
