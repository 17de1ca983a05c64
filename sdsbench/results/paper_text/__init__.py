"""Text for a paper, generated from records: the paragraph on the experimental setup, and BibTeX entries."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from sdsbench.core.errors import ConfigError, Problem

if TYPE_CHECKING:
    from sdsbench.results.tables.loaded_runs import Run

NAMES = ("paragraph", "bibtex")


def texts(name: str, runs: Sequence[Run]) -> dict[str, str]:
    """{"md", "tex"} of the paragraph or {"bib"} of the references. Raises Unavailable if no run is finished."""
    from sdsbench.results import escape
    from sdsbench.results.paper_text.bibtex import bibtex
    from sdsbench.results.paper_text.paragraph import paragraphs

    if name == "bibtex":
        return {"bib": bibtex(runs)}
    written = paragraphs(runs)
    return {
        "md": "\n\n".join(map(escape.markdown, written)) + "\n",
        "tex": "\n\n".join(map(escape.latex, written)) + "\n",
    }


def one_of(name: str, found: Mapping[str, str], ending: str) -> str:
    """The text in the format `ending`, or the only one there is. Raises ConfigError for a missing format."""
    if len(found) == 1:
        return next(iter(found.values()))
    if ending not in found:
        words = {"md": "markdown", "tex": "latex"}
        accepted = ", ".join(words.get(key, key) for key in found)
        raise ConfigError([Problem("--format", words.get(ending, ending), accepted, f"{name} has no other.")])
    return found[ending]
