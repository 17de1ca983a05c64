"""`sdsbench theory`: rate of convergence against condition number, per method and optimizer, on small problems."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from sdsbench.cli.shared import options


class _Commas(click.ParamType):
    """Comma-separated values: `lora,sds_lora`, `1,10,100`."""

    name = "values"

    def __init__(self, kind: type) -> None:
        self.kind = kind

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[Any, ...]:
        try:
            return value if isinstance(value, tuple) else tuple(self.kind(part) for part in str(value).split(","))
        except ValueError:
            self.fail(f"{value!r}: {self.kind.__name__} values by commas", param, ctx)


_NAMES, _NUMBERS = _Commas(str), _Commas(float)


@click.command(
    "theory",
    epilog="Default: factorisation, four methods, SGD and AdamW, seconds. --full: the study of docs/mechanism.md.",
)
@click.option("--full", is_flag=True, help="Both problems, nine methods, three optimizers (minutes).")
@click.option("--problem", "kinds", type=_NAMES, metavar="A,B", help="factorisation, regression.")
@click.option("--method", "methods", type=_NAMES, metavar="A,B", help="Methods, separated by commas.")
@click.option("--optimizer", "optimizers", type=_NAMES, metavar="A,B", help="sgd, momentum, adamw.")
@click.option("--condition", "conditions", type=_NUMBERS, metavar="X,Y", help="Condition numbers, at least 1.")
@click.option("--rates", "learning_rates", type=_NUMBERS, metavar="X,Y", help="Grid of learning rates for tuning.")
@click.option("--seeds", type=int)
@click.option("--tuning-seeds", type=int)
@click.option("--steps", type=int)
@click.option("--beta1", type=float, help="beta1 of AdamW; 0: no momentum.")
@click.option("--refresh", type=click.Choice(["author", "relative", "every", "never"]), help="SDS-LoRA's refresh rule.")
@click.option("--m", type=int, help="Output size.")
@click.option("--n", type=int, help="Input size.")
@click.option("--rank", type=int, help="Rank of the target and of the adapters.")
@click.option("--size", type=float, help="Largest singular value of the target.")
@click.option("--noise", type=float, help="Standard deviation of the noise on the targets.")
@options.folder("--out", help="Default: results/theory with --full, else results/theory_quick.")
def command(full: bool, out: Path | None, **given: Any) -> None:
    """Measure the rate of convergence against the condition number, per method and optimizer, on small problems."""
    import dataclasses

    import torch

    from sdsbench.core.errors import ConfigError
    from sdsbench.core.progress import Progress
    from sdsbench.results.terminal import print_markdown
    from sdsbench.studies.theory.output import markdown, write
    from sdsbench.studies.theory.study import FULL, Grid, run

    torch.set_num_threads(1)  # for hundreds of tiny products, threads only add overhead
    asked = {key: value for key, value in given.items() if value is not None}
    parts = {key: asked.pop(key) for key in ("m", "n", "rank", "size", "noise") if key in asked}
    grid = FULL if full else Grid()
    grid = dataclasses.replace(grid, **asked, setting=dataclasses.replace(grid.setting, **parts))
    problems = list(grid.problems())
    if problems:
        raise ConfigError(problems)
    with Progress("theory", len(grid.kinds) * len(grid.optimizers) * len(grid.methods)) as progress:
        cells = run(grid, lambda line: progress.advance(1, line))
    print_markdown(markdown(cells, grid) + "\n")
    for path in write(cells, grid, out or Path("results/theory" if full else "results/theory_quick")):
        print(path)
