"""BibTeX entries of the methods, data sets and models used by runs.

references.bib holds the entries; the field `keywords` says what each one is for: method:lora, data:gsm8k,
model:mistral_7b. A plugin can have its own references.bib beside its module.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence
from pathlib import Path

from sdsbench.core import plugins
from sdsbench.core.source_hash import source_file
from sdsbench.results import escape
from sdsbench.results.tables.loaded_runs import Run
from sdsbench.results.tables.titles import trains_base

FILE = "references.bib"


def bibtex(runs: Sequence[Run]) -> str:
    """The entries that these runs need, ordered by key; names without an entry are listed in comments."""
    wanted = sorted(_wanted(runs))
    found = {entry for word in wanted if (entry := _entry(word))}
    missing = (escape.one_line(word.replace(":", " ")) for word in wanted if not _entry(word))
    lines = [f"% no reference is known for {word}" for word in missing]
    return "\n\n".join(sorted(found, key=_key) + (["\n".join(lines)] if lines else [])) + "\n"


def _entry(word: str) -> str | None:
    """The entry of a keyword; `data:glue/rte` falls back to `data:glue`."""
    known = entries()
    return known.get(word) or known.get(word.partition("/")[0])


@functools.cache
def entries() -> dict[str, str]:
    """keyword -> entry, of this package and of installed plugins; this package's entry wins if both have one."""
    found: dict[str, str] = {}
    for path in _files():
        for entry in re.findall(r"^@\w+\{.*?^\}", path.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL):
            words = re.search(r"keywords\s*=\s*\{([^}]*)\}", entry)
            for word in re.split(r"[,\s]+", words[1].strip()) if words else ():
                found.setdefault(word, entry)
    return found


def _files() -> list[Path]:
    beside = [source_file(module) for module in plugins.installed()]
    paths = [Path(__file__).parent / FILE, *(path.parent / FILE for path in beside if path is not None)]
    return [path for path in paths if path.is_file()]


def _wanted(runs: Sequence[Run]) -> set[str]:
    wanted: set[str] = set()
    for run in runs:
        record = run.record
        wanted |= {f"model:{record.model}"}
        if not trains_base(record.method):  # full fine-tuning has no paper to cite
            wanted |= {f"method:{record.method}"}
        if record.provenance is not None:
            # Generated data has the real data set's name and format, so the real one is cited.
            wanted |= {f"data:{used.dataset}" for used in record.provenance.data}
    return wanted


def _key(entry: str) -> str:
    return entry.partition("{")[2].partition(",")[0]
