"""`sdsbench profile [OVERRIDES]`: where the time and the memory of one optimizer step of a run go."""

from __future__ import annotations

from collections.abc import Mapping

import click

from sdsbench.cli.shared import options


@click.command("profile")
@options.overrides
@options.config_dirs
@click.option(
    "--steps",
    default=3,
    show_default=True,
    type=click.IntRange(min=1),
    help="Number of profiled steps; their median is shown.",
)
def command(overrides: tuple[str, ...], config_dirs: tuple[str, ...], steps: int) -> None:
    """Train a few steps of a run without recording it, and print the time and memory of each part of a step."""
    from sdsbench.runs.configuration.compose import compose_run

    config = compose_run(overrides, config_dirs)

    from sdsbench.runs.prepare import ready_to_train
    from sdsbench.training.profiling import memory_table, time_table

    training, state = ready_to_train(config)
    seconds = time_table(training, state, steps)
    tokens = sum(example.length for example in training.batch(state.step))
    total = sum(seconds.values())
    print(f"{config.method.name} on {config.model.name}, one step of {tokens} tokens: {total:.3f} s\n")
    _print({part: (f"{1000 * value:.1f} ms", value / total) for part, value in seconds.items()})
    print()
    sizes = memory_table(training, state)
    print("\n".join(f"{part:<48} {size / 2**20:>10.1f} MiB" for part, size in sizes.items()))


def _print(rows: Mapping[str, tuple[str, float]]) -> None:
    for part, (text, share) in rows.items():
        print(f"{part:<32} {text:>12} {100 * share:>5.1f} %  {'#' * round(40 * share)}")
