"""Write a text that a pretrained decoder predicts well, for eval.text: sentences of Wikipedia from GLUE's QNLI.

    python scripts/write_held_out_text.py FOLDER FILE.txt      FOLDER holds glue/qnli/validation.parquet (docs/data.md)

Each sentence once, in the order of the file, up to 80,000 characters.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pyarrow.parquet as pq

from sdsbench.core.files import write_atomic

CHARACTERS = 80_000  # about 18,000 tokens


def text_of(folder: Path) -> str:
    """The text made from a folder that contains glue/qnli/validation.parquet."""
    sentences = pq.read_table(folder / "glue/qnli/validation.parquet", columns=["sentence"])["sentence"].to_pylist()
    kept: list[str] = []
    left = CHARACTERS
    for sentence in dict.fromkeys(sentences):
        left -= len(sentence) + 1
        if left < 0:
            break
        kept.append(sentence)
    return "\n".join(kept) + "\n"


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("usage: python scripts/write_held_out_text.py FOLDER FILE.txt")
    write_atomic(Path(sys.argv[2]), text_of(Path(sys.argv[1])))
