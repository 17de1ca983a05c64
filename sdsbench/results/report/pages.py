"""The templates of all pages. What is data is shown as text: escaped for HTML, its control characters written out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jinja2

from sdsbench.core.files import write_atomic
from sdsbench.results import escape

TEMPLATES = Path(__file__).parent / "templates"


def template(name: str) -> jinja2.Template:
    """A template by its file's name."""
    loader = jinja2.FileSystemLoader(TEMPLATES)
    return jinja2.Environment(loader=loader, autoescape=True, trim_blocks=True, finalize=_visible).get_template(name)


def write_style(folder: Path) -> None:
    """The style sheet that the pages of a folder share."""
    write_atomic(folder / "style.css", (TEMPLATES / "style.css").read_text())


def _visible(value: Any) -> Any:
    """Markup that is ours stays as it is."""
    return escape.visible(value) if type(value) is str else value
