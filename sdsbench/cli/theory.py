"""`sdsbench theory`: rate of convergence against condition number, per method and optimizer, on small problems."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Sequence
from pathlib import Path


def main(arguments: Sequence[str]) -> int:
    given = _parser().parse_args(arguments)
    import torch

    from sdsbench.core.errors import ConfigError
    from sdsbench.core.progress import Progress
    from sdsbench.studies.theory.report import markdown, write
    from sdsbench.studies.theory.study import FULL, Grid, run

    torch.set_num_threads(1)  # hundreds of tiny products: threads only get in each other's way
    grid = FULL if given.full else Grid()
    chosen = {key: value for key, value in vars(given).items() if value is not None and hasattr(grid, key)}
    chosen = {key: tuple(value) if isinstance(value, list) else value for key, value in chosen.items()}
    parts = {key: getattr(given, key) for key in ("m", "n", "rank", "size", "noise") if getattr(given, key) is not None}
    grid = dataclasses.replace(grid, **chosen, setting=dataclasses.replace(grid.setting, **parts))
    problems = list(grid.problems())
    if problems:
        raise ConfigError(problems)
    bar = Progress("theory", len(grid.kinds) * len(grid.optimizers) * len(grid.methods))
    cells = run(grid, lambda line: bar.advance(1, line))
    print(markdown(cells, grid))
    for path in write(cells, grid, given.out or Path("results/theory" if given.full else "results/theory_quick")):
        print(path)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="sdsbench theory",
        description=str(__doc__).split(": ", 1)[1],
        epilog="Default: factorisation, four methods, SGD and AdamW, seconds. --full: the study of docs/mechanism.md.",
    )
    parser.add_argument("--full", action="store_true", help="both problems, nine methods, three optimizers (minutes)")
    parser.add_argument("--problem", dest="kinds", nargs="+", help="factorisation, regression")
    parser.add_argument("--method", dest="methods", nargs="+")
    parser.add_argument("--optimizer", dest="optimizers", nargs="+", help="sgd, momentum, adamw")
    parser.add_argument("--condition", dest="conditions", nargs="+", type=float, help="condition numbers, from 1")
    parser.add_argument("--rates", dest="learning_rates", nargs="+", type=float, help="grid that lr is tuned over")
    parser.add_argument("--seeds", type=int)
    parser.add_argument("--tuning-seeds", type=int)
    parser.add_argument("--steps", type=int)
    parser.add_argument("--m", type=int, help="output size")
    parser.add_argument("--n", type=int, help="input size")
    parser.add_argument("--rank", type=int, help="of the target and of the adapters")
    parser.add_argument("--size", type=float, help="largest singular value of the target")
    parser.add_argument("--noise", type=float, help="standard deviation of the noise on the targets")
    parser.add_argument("--out", type=Path, help="results/theory with --full, else results/theory_quick")
    return parser
