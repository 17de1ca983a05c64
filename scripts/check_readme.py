"""Runs the commands of README.md's blocks marked `<!-- run -->`, so that what it tells users stays true.

A block is a fence of shell commands on the lines after the mark. Each command runs at the root of the checkout with
`sdsbench` and `python` taken from .venv; the first that fails ends the check with its output.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parent.parent


def commands(readme: str) -> list[str]:
    """The command lines of all marked blocks, comments removed, continued lines joined."""
    blocks = re.findall(r"<!-- run -->\s*```(?:sh|bash)\n(.*?)```", readme, flags=re.S)
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    return [line.split("  #")[0].strip() for line in lines if line.strip() and not line.startswith("#")]


def main() -> int:
    path = f"{ROOT / '.venv' / 'bin'}:{os.environ['PATH']}"
    for command in commands((ROOT / "README.md").read_text()):
        started = time.monotonic()
        done = subprocess.run(
            ["bash", "-c", command],
            cwd=ROOT,
            env={**os.environ, "PATH": path},
            capture_output=True,
            text=True,
            check=False,
        )
        print(
            f"{'ok' if done.returncode == 0 else 'FAILED'}  {time.monotonic() - started:6.1f} s  {command}", flush=True
        )
        if done.returncode != 0:
            print(done.stdout + done.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
