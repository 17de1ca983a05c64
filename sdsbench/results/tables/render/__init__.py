"""Writing a table's frame as Markdown, LaTeX, HTML and CSV."""

from __future__ import annotations

from collections.abc import Callable

from sdsbench.results import escape
from sdsbench.results.tables.build import Built
from sdsbench.results.tables.render import html, latex, markdown

FORMATS: dict[str, tuple[str, Callable[[Built], str]]] = {
    "markdown": ("md", markdown.render),
    "latex": ("tex", latex.render),
    "html": ("html", html.render),
    "csv": ("csv", lambda built: escape.csv(built.frame)),
}
