"""Command-line parser of a benchmark, built from the defaults of its options."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any


def parse_options(
    arguments: Sequence[str] | None, name: str, doc: str, out: str | None = "benchmarks/results", **defaults: Any
) -> argparse.Namespace:
    """Parse the arguments of `python -m benchmarks.NAME`; the first line of `doc` is its description.

    `defaults` maps option names to their default, or to (default, help). The default decides the kind of option: False
    is a switch, True a switch with a --no- form, a list holds the accepted values (the first is the default), None is
    an optional text, and any other value has its own type. `out`: default of --out; None: no such option.
    """
    parser = argparse.ArgumentParser(prog=f"python -m benchmarks.{name}", description=doc.splitlines()[0])
    for key, default in {**defaults, **({"out": out} if out else {})}.items():
        default, words = default if isinstance(default, tuple) else (default, None)
        option = f"--{key.replace('_', '-')}"
        if isinstance(default, bool):
            parser.add_argument(
                option, action=argparse.BooleanOptionalAction if default else "store_true", default=default, help=words
            )
        elif isinstance(default, list):
            parser.add_argument(option, choices=default, default=default[0], help=words)
        else:
            parser.add_argument(option, type=str if default is None else type(default), default=default, help=words)
    return parser.parse_args(arguments)
