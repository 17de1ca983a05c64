"""`sdsbench show [OVERRIDES]`: the resolved configuration of a run, and a protocol beside its paper's own table."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from sdsbench.core.errors import Unavailable
from sdsbench.core.texts import text
from sdsbench.runs.configuration.compose import compose_run, iter_leaves
from sdsbench.runs.configuration.identity import PLACING, inert_keys, run_id
from sdsbench.runs.configuration.paper import beside
from sdsbench.runs.configuration.schema import RunConfig
from sdsbench.runs.data_source import require_data, resolve_source
from sdsbench.tasks import base as tasks

PLACES_NOTE = "   (where, not what: not part of the run's name)"
INERT_NOTE = "   (no effect on this run: not part of its name)"


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="sdsbench show", description="Prints every key of a run with its value; the same overrides start the run."
    )
    parser.add_argument("overrides", nargs="*", help="method=lora train.lr=1e-3 protocol=lora_sb/glue ...")
    parser.add_argument("--config-dir", action="append", default=[], help="your own YAML files beside ours")
    given = parser.parse_args(arguments)
    config = compose_run(given.overrides, given.config_dir)
    tree = config.model_dump()
    del tree["protocol"]["paper"]
    inert = inert_keys(config)
    leaves = list(iter_leaves(tree))
    width = max(len(key) for key, _ in leaves)
    for key, value in leaves:
        note = PLACES_NOTE if key in PLACING else INERT_NOTE if key in inert else ""
        print(f"{key:<{width}}  {text(value)}{note}")
    if lines := list(beside(config)):
        print(f"\nthis run beside {config.protocol.source}:")
        rows = [("", "ours", "paper", "equal"), *lines]
        widths = [max(len(row[i]) for row in rows) for i in (0, 1)]
        last = max(len(row[2]) for row in rows if row[3])
        for key, ours, printed, equal in rows:
            print(f"  {key:<{widths[0]}}  {ours:<{widths[1]}}  {printed:<{last}}  {equal}".rstrip())
    print(f"\n{_named(config)}")
    return 0


def _named(config: RunConfig) -> str:
    """The run's name, which holds the source of data; where there is none, what would do."""
    members = tasks.build(config.task).members
    if members:
        return f"task={config.task.name} is {len(members)} runs, each with an id of its own (task={members[0]} ...)"
    try:
        config, why = resolve_source(config)
        require_data(config)
    except Unavailable as error:
        return f"no run id: {error}"
    return f"run id {run_id(config)} (data.source={config.data.source}: {why})"
