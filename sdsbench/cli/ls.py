"""`sdsbench ls [GROUP]`: list the available models, methods, tasks, sweeps, tables, claims, figures and plugins."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import click

from sdsbench.cli.shared import options

GROUPS = ("model", "method", "task", "tracker", "protocol", "variant", "sweep", "slurm")
"""Config groups (folders of conf/); the last two are used by `plan` and `submit`."""
NAMES = ("table", "claim", "figure", "plugin")
"""Lists that are no config groups: arguments of `table`, `verdict` and `figures`, and installed plugins."""


@click.command("ls")
@click.argument("group", required=False, metavar="[GROUP]")
@options.config_dirs
@options.plugins
def command(group: str | None, config_dirs: tuple[str, ...]) -> None:
    """List the available choices of all groups, or of one.

    Groups are model, method, task, tracker, protocol, variant, sweep, slurm, table, claim, figure, plugin.
    """
    from sdsbench.core.console import print_table, terminal_width
    from sdsbench.core.errors import ConfigError, Problem
    from sdsbench.core.spelling import nearest
    from sdsbench.runs.configuration.choices import own_groups

    listed = (*GROUPS, *own_groups(config_dirs), *NAMES)
    asked = group if group is None or group in listed else group.removesuffix("s")
    if asked is not None and asked not in listed:
        raise ConfigError([Problem("group", group, ", ".join(listed), nearest(asked, listed))])
    for name in [asked] if asked else listed:
        choices = _names(name) if name in NAMES else _choices(name, config_dirs)
        print(f"{name}:" if name in NAMES else f"{name}=")
        if terminal_width() is not None:
            print_table(("", ""), [(f"  {choice}", headline) for choice, headline in choices.items()])
            continue
        width = max(map(len, choices), default=0)
        for choice, headline in choices.items():
            print(f"  {choice:<{width}}  {headline}".rstrip())


def _names(kind: str) -> Mapping[str, str]:
    """Name -> description of all tables, claims, figures or plugins."""
    if kind == "plugin":
        return _plugins()
    if kind == "table":
        from sdsbench.results.tables.table_registry import MADE_OF_RUNS, TABLES, definition_of

        return {name: definition_of(name).title for name in TABLES} | MADE_OF_RUNS
    if kind == "figure":
        from sdsbench.results.figures import FIGURES, figure_of

        return {name: figure_of(name).caption for name in FIGURES}
    from sdsbench.results.claims.claim_files import read_all

    return {name: claim.sentence for name, (claim, _) in read_all().items()}


def _plugins() -> Mapping[str, str]:
    """Module of each installed plugin -> package that declares it."""
    from importlib.metadata import entry_points

    from sdsbench.core.plugins import GROUP

    points = sorted(entry_points(group=GROUP), key=lambda point: point.name)
    return {point.module: f"from {point.dist.name} {point.dist.version}" for point in points if point.dist}


def _first_sentence(comments: Sequence[str]) -> str:
    """The first comment, with the lines that continue its sentence; indented lines are commands."""
    words: list[str] = []
    for line in comments:
        text = line.strip()
        if words and (line.startswith("  ") or not (words[-1].endswith(",") or text[:1].islower())):
            break
        words.append(text.split("    ")[0])
    return " ".join(words)


def _choices(group: str, config_dirs: Sequence[str]) -> Mapping[str, str]:
    """Choice -> first comment of its YAML file, for one config group."""
    from sdsbench.runs.configuration.choices import conf_folder, options

    found = {}
    for choice in options(group, config_dirs):
        path = conf_folder() / group / f"{choice}.yaml"
        lines = path.read_text().splitlines() if path.is_file() else ["# (yours)"]
        comments = [line.removeprefix("#") for line in lines if line.startswith("#") and "@package" not in line]
        found[choice] = _first_sentence(comments)
    return found
