"""`sdsbench profile [OVERRIDES]`: where the time and the memory of one optimizer step of a run go."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence

from sdsbench.runs.configuration.compose import compose_run


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="sdsbench profile", description="Trains a few steps of the run, records nothing, prints two small tables."
    )
    parser.add_argument("overrides", nargs="*", help="method=dora model=micro train.batch_size=8 ...")
    parser.add_argument("--config-dir", action="append", default=[], help="your own YAML files beside ours")
    parser.add_argument("--steps", type=int, default=3, help="profiled steps; the median is shown")
    given = parser.parse_args(arguments)
    config = compose_run(given.overrides, given.config_dir)

    from sdsbench.runs.prepare import ready_to_train
    from sdsbench.training.profiling import memory_table, time_table

    training, state = ready_to_train(config)
    seconds = time_table(training, state, given.steps)
    tokens = sum(example.length for example in training.batch(state.step))
    total = sum(seconds.values())
    print(f"{config.method.name} on {config.model.name}, one step of {tokens} tokens: {total:.3f} s\n")
    _print({part: (f"{1000 * value:.1f} ms", value / total) for part, value in seconds.items()})
    print()
    sizes = memory_table(training, state)
    print("\n".join(f"{part:<48} {size / 2**20:>10.1f} MiB" for part, size in sizes.items()))
    return 0


def _print(rows: Mapping[str, tuple[str, float]]) -> None:
    for part, (text, share) in rows.items():
        print(f"{part:<32} {text:>12} {100 * share:>5.1f} %  {'#' * round(40 * share)}")
