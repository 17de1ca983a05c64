"""Puts the study's table into README.md, between its two marks, from the committed records. `--check` only compares."""

from __future__ import annotations

import contextlib
import io
import sys
from pathlib import Path

from sdsbench.__main__ import main as sdsbench

ROOT = Path(__file__).parent.parent
BEGIN, END = "<!-- results: begin, written by scripts/write_readme_results.py -->", "<!-- results: end -->"


def written(readme: str) -> str:
    """The README with the table as the records give it now."""
    text = io.StringIO()
    with contextlib.redirect_stdout(text):
        sdsbench(["table", "grid", "--runs", str(ROOT / "results/study/runs")])
    before, rest = readme.split(BEGIN)
    after = rest.split(END)[1]
    return f"{before}{BEGIN}\n{text.getvalue().strip()}\n{END}{after}"


def main() -> int:
    path = ROOT / "README.md"
    readme = path.read_text()
    new = written(readme)
    if "--check" not in sys.argv:
        path.write_text(new)
    return int("--check" in sys.argv and new != readme)


if __name__ == "__main__":
    sys.exit(main())
