"""`sdsbench show [OVERRIDES]`: the resolved configuration of a run, and a protocol beside its paper's own table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

from sdsbench.cli.shared import options

if TYPE_CHECKING:
    from sdsbench.runs.configuration.schema import RunConfig

PLACES_NOTE = "   (where, not what: not part of the run's name)"
INERT_NOTE = "   (no effect on this run: not part of its name)"


@click.command("show")
@options.overrides
@options.config_dirs
@options.runs
def command(overrides: tuple[str, ...], config_dirs: tuple[str, ...], runs: tuple[str, ...]) -> None:
    """Print every key of a run with its value; the same overrides start the run.

    With the id of an existing run (or a prefix of its id, or its folder) instead of overrides, print the recorded
    configuration.
    """
    if len(overrides) == 1 and "=" not in overrides[0]:
        _show_recorded(overrides[0], runs)
        return
    from sdsbench.data import catalogue
    from sdsbench.runs.configuration.compose import compose_run
    from sdsbench.runs.configuration.identity import PLACING, inert_keys
    from sdsbench.runs.configuration.paper import comparison_lines

    config = compose_run(overrides, config_dirs)
    notes = dict.fromkeys(inert_keys(config), INERT_NOTE) | dict.fromkeys(PLACING, PLACES_NOTE)
    if catalogue.known(config.task.train_set) and (note := catalogue.get(config.task.train_set).note):
        notes["task.train_set"] = f"   ({note})"
    _print_keys(config.model_dump(), notes)
    if lines := list(comparison_lines(config)):
        print(f"\nthis run beside {config.protocol.source}:")
        rows = [("", "ours", "paper", "equal"), *lines]
        widths = [max(len(row[i]) for row in rows) for i in (0, 1)]
        last = max(len(row[2]) for row in rows if row[3])
        for key, ours, printed, equal in rows:
            print(f"  {key:<{widths[0]}}  {ours:<{widths[1]}}  {printed:<{last}}  {equal}".rstrip())
    print(f"\n{_named(config)}")


def _print_keys(tree: Mapping[str, Any], notes: Mapping[str, str]) -> None:
    """Print each key with its value and note; after them the quotations from the paper."""
    from sdsbench.core.leaves import leaves
    from sdsbench.core.texts import text
    from sdsbench.runs.configuration.schema import PROTOCOL_TABLES

    shown = [leaf for leaf in leaves(dict(tree)) if not leaf[0].startswith(PROTOCOL_TABLES)]
    width = max(len(key) for key, _ in shown)
    for key, value in shown:
        print(f"{key:<{width}}  {text(value)}{notes.get(key, '')}")


def _show_recorded(name: str, roots: Sequence[str]) -> None:
    """Print the configuration stored in a run's folder."""
    from sdsbench.cli.shared.run_folders import run_folder
    from sdsbench.core.errors import ConfigError, DamagedFile, Problem
    from sdsbench.core.limits import RECORD
    from sdsbench.core.run_folder import read_record
    from sdsbench.core.yaml_text import read_yaml

    folder = run_folder(name, roots)
    path = folder / "config.yaml"
    if not path.is_file():
        raise ConfigError([Problem("run", str(folder), "a run folder with config.yaml")])
    tree = read_yaml(path, RECORD)
    if not isinstance(tree, dict) or not tree:
        raise DamagedFile(f"{path}: not a configuration: keys of a run with their values.")
    _print_keys(tree, {})
    record = read_record(folder / "record.json")
    print(f"\nrun {record.run_id}: {record.status}, {folder}")


def _named(config: RunConfig) -> str:
    """The run's id; it depends on the data source, so if no source is available, a text that says how to get one."""
    from sdsbench.core.errors import ConfigError, Unavailable
    from sdsbench.runs.configuration.identity import run_id
    from sdsbench.runs.data_source import require_data, resolve_source
    from sdsbench.tasks import base as tasks

    members = tasks.build(config.task).members
    if members:
        return f"task={config.task.name} is {len(members)} runs, each with an id of its own (task={members[0]} ...)"
    try:
        config, why = resolve_source(config)
        require_data(config)
    except (ConfigError, Unavailable) as error:
        return f"no run id: {error}"
    return f"run id {run_id(config)} (data.source={config.data.source}: {why})"
