"""Write the study's tables into its pages from results/study/*.zip, draw its forest plots, and judge the claims on all
parts together (results/study/verdict.md). Comments in a page mark the tables:

    <!-- table: PART NAME -->           begins the table of `sdsbench table NAME` over the bundle of a part
    <!-- table: mechanism probes -->    begins the table of the probes' measurements (PROBES, by `sdsbench figures`)
    <!-- table: end -->                 ends either

Part names are those of results/study/PART.zip. `--check` changes nothing; its exit code is 1 if a page is out of date.
"""

from __future__ import annotations

import re
import sys
from functools import cache
from pathlib import Path

import pandas as pd

from sdsbench.__main__ import main as sdsbench
from sdsbench.results.figure_style import save
from sdsbench.results.report import plots
from sdsbench.results.report.boards import boards
from sdsbench.results.tables import by_name
from sdsbench.results.tables.runs import Run, load

ROOT = Path(__file__).parent.parent
STUDY = ROOT / "results/study"
PROBES = ROOT / "results/mechanism/summary.csv"
PAGES = (ROOT / "README.md", ROOT / "docs/study.md", ROOT / "docs/mechanism.md")
MARK = re.compile(r"(<!-- table: (\w+) (\w+) -->\n).*?(<!-- table: end -->)", flags=re.S)
REFERENCE = ("lora", 8)


@cache
def runs_of(part: str) -> list[Run]:
    """The runs of a part of the study. Raises DamagedFile if its bundle was changed."""
    return load([STUDY / f"{part}.zip"])[0]


def written(page: str) -> str:
    """The text of a page with its tables recomputed from the records."""

    def table(match: re.Match[str]) -> str:
        if match[3] == "probes":
            return f"{match[1]}{probes_table()}\n{match[4]}"
        filled = by_name.built(match[3], runs_of(match[2]), {})
        text = by_name.texts(filled, REFERENCE if match[3] == "compare" else None)["md"]
        return f"{match[1]}{text.strip()}\n{match[4]}"

    return MARK.sub(table, page)


MEASURES = {
    "alignment": ("alignment", 2), "actual_alignment": ("of the real step", 3),
    "equivalent_effective_rank": ("rank", 1), "weakest_gain": ("weakest", 2),
}  # fmt: skip


def probes_table() -> str:
    """Means of the probes' measures: a row for each variant, a column for each optimizer and measure."""
    frame = pd.read_csv(PROBES)
    means = frame.pivot_table(index="line", columns=["optimizer", "measure"], values="mean", sort=False)
    optimizers = sorted(frame["optimizer"].unique(), reverse=True)
    heads = [f"{optimizer}: {title}" for optimizer in optimizers for title, _ in MEASURES.values()]
    lines = [f"|  | {' | '.join(heads)} |", "| --- |" + " --: |" * len(heads)]
    for line in means.index:
        numbers = [
            f"{means.loc[line, (optimizer, key)]:.{digits}f}"
            for optimizer in optimizers
            for key, (_, digits) in MEASURES.items()
        ]
        lines.append(f"| {line} | {' | '.join(numbers)} |")
    return "\n".join(lines)


def draw(part: str) -> None:
    """Draw results/study/PART_forest.svg, .png and .pdf, with a number after the name from the second task on."""
    for number, board in enumerate(boards(runs_of(part), reference=REFERENCE[0], rank=REFERENCE[1])):
        figure = plots.forest(board)
        if figure is not None:
            label = f"Difference to LoRA of rank {REFERENCE[1]}: {board.title}"
            save(figure, STUDY / (f"{part}_forest" + (f"_{number + 1}" if number else "")), label)


def main() -> int:
    pages = {path: path.read_text() for path in PAGES}
    new = {path: written(text) for path, text in pages.items()}
    if "--check" in sys.argv:
        return int(new != pages)
    for path, text in new.items():
        path.write_text(text)
    bundles = sorted(STUDY.glob("*.zip"))
    for bundle in bundles:
        draw(bundle.stem)
    return sdsbench(["verdict", *(f"--runs={bundle}" for bundle in bundles), f"--output={STUDY / 'verdict.md'}"])


if __name__ == "__main__":
    sys.exit(main())
