"""Shell completion of KEY=VALUE words: config groups, their choices, and the keys of conf/config.yaml."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import click
from click.shell_completion import CompletionItem

from sdsbench.runs.configuration.choices import GROUPS, conf_folder, options


def complete_override(ctx: click.Context, _parameter: click.Parameter | None, incomplete: str) -> list[CompletionItem]:
    """`train.l` -> `train.lr=`; `meth` and `method=` -> `method=dora`, `method=lora` ..."""
    folders = ctx.params.get("config_dirs") or ()
    given = [str(word) for word in ctx.params.get("overrides") or ()]
    if given[-1:] == ["="] and len(given) > 1:  # bash splits `method=l` into three words and completes the last one
        return [CompletionItem(choice) for choice in options(given[-2], folders) if choice.startswith(incomplete)]
    if not incomplete and given and given[-1] in GROUPS:  # bash splits `method=` as well; click drops the `=`
        return [CompletionItem(choice) for choice in options(given[-1], folders)]
    group, equals, start = incomplete.partition("=")
    groups = [name for name in GROUPS if name.startswith(incomplete)]
    if not equals and incomplete and len(groups) == 1:
        group, equals, start = groups[0], "=", ""
    if equals:
        return [CompletionItem(f"{group}={choice}") for choice in options(group, folders) if choice.startswith(start)]
    return [CompletionItem(f"{key}=") for key in (*GROUPS, *_keys()) if key.startswith(incomplete)]


def _keys() -> Iterator[str]:
    """The keys of conf/config.yaml, which every run has."""
    import yaml

    tree: dict[str, Any] = yaml.safe_load((conf_folder() / "config.yaml").read_text())
    for section, value in tree.items():
        if section not in ("defaults", "hydra"):
            yield from [f"{section}.{key}" for key in value] if isinstance(value, dict) else [section]
