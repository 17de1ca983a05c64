"""Run the commands of README.md and docs/tutorial.md, so that these pages stay true. HTML comments mark the blocks:

    <!-- run -->                     run the shell commands of the next block at the root of the checkout
    <!-- file: PATH -->              write the next block as this file of a temporary folder
    <!-- run beside these files -->  run the shell commands of the next block in that folder

`sdsbench` and `python` are those of .venv. The first command of a page that fails ends the check of that page and its
output is printed.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parent.parent
PAGES = ("README.md", "docs/tutorial.md")

RUN, BESIDE = "run", "run beside these files"


def blocks(readme: str, mark: str) -> list[str]:
    """The contents of the fenced blocks that follow a mark."""
    return re.findall(rf"<!-- {mark} -->\s*```\w+\n(.*?)```", readme, flags=re.S)


def commands(readme: str, mark: str) -> list[str]:
    """The command lines of all blocks with the mark, comments removed, continued lines joined."""
    lines = "\n".join(blocks(readme, mark)).replace("\\\n", " ").splitlines()
    return [line.split("  #")[0].strip() for line in lines if line.strip() and not line.startswith("#")]


def write_files(readme: str, folder: Path) -> None:
    """Write the files that the page tells users to write."""
    for name, text in re.findall(r"<!-- file: (\S+) -->\s*```\w+\n(.*?)```", readme, flags=re.S):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


def run(command: str, folder: Path) -> bool:
    """Run one command, print its duration, and its output if it fails. Returns whether it succeeded."""
    path, started = f"{ROOT / '.venv' / 'bin'}:{os.environ['PATH']}", time.monotonic()
    done = subprocess.run(
        ["bash", "-c", command], cwd=folder, env={**os.environ, "PATH": path}, capture_output=True, text=True
    )
    good = done.returncode == 0
    print(f"{'ok' if good else 'FAILED'}  {time.monotonic() - started:6.1f} s  {command}", flush=True)
    if not good:
        print(done.stdout + done.stderr)
    return good


def check(page: str) -> bool:
    """Run the commands of a page until one fails, with the files that it tells users to write. Returns whether all
    succeeded."""
    text = (ROOT / page).read_text()
    with tempfile.TemporaryDirectory() as name:
        write_files(text, Path(name))
        wanted = [(command, ROOT) for command in commands(text, RUN)]
        wanted += [(command, Path(name)) for command in commands(text, BESIDE)]
        return all(run(*each) for each in wanted)


if __name__ == "__main__":
    sys.exit(0 if all([check(page) for page in PAGES]) else 1)
