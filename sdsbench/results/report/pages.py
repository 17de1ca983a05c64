"""The templates of all pages. Data is inserted as text: escaped for HTML, control characters written out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jinja2

from sdsbench.core.files import write_atomic
from sdsbench.results import escape

TEMPLATES = Path(__file__).parent / "templates"


def template(name: str) -> jinja2.Template:
    """The template with this file name."""
    loader = jinja2.FileSystemLoader(TEMPLATES)
    return jinja2.Environment(loader=loader, autoescape=True, trim_blocks=True, finalize=_visible).get_template(name)


def write_style(folder: Path) -> None:
    """Write style.css, which all pages of the folder use."""
    write_atomic(folder / "style.css", (TEMPLATES / "style.css").read_text())


def _visible(value: Any) -> Any:
    """Write control characters out, except in trusted markup."""
    return escape.visible(value) if type(value) is str else value
