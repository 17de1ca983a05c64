"""Translating click's usage errors into this package's: one message, exit code 2, the nearest correct spelling."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches
from itertools import takewhile

import click

from sdsbench.cli.shared.verbs import verbs
from sdsbench.core.errors import ConfigError, Problem, Refused, SdsbenchError
from sdsbench.core.spelling import nearest
from sdsbench.runs.configuration.choices import GROUPS, options


def refusal(error: click.ClickException, words: Sequence[str]) -> SdsbenchError:
    """The error to show for a command line that click refused."""
    if isinstance(error, click.exceptions.NoSuchCommand):
        return ConfigError([Problem("verb", error.command_name, ", ".join(verbs()), _verb_advice(error, words))])
    if isinstance(error, click.NoSuchOption):
        return Refused(f"no option {error.option_name}. {_option_advice(error, words)}".strip() + _help(error))
    return Refused(error.format_message() + _help(error))


def _verb_advice(error: click.exceptions.NoSuchCommand, words: Sequence[str]) -> str:
    if error.command_name in GROUPS:
        return f"Hydra writes {_assignment(error.command_name, words)}."
    choices = list(map(_choice, takewhile(lambda word: word.isidentifier(), words)))
    if choices and choices[0]:
        return f"Hydra writes {' '.join(filter(None, choices))}."
    return nearest(error.command_name, verbs())


def _choice(word: str) -> str:
    """`method=lora` for `lora`; empty if no group of conf/ has this choice."""
    return next((f"{group}={word}" for group in GROUPS if word in options(group)), "")


def _option_advice(error: click.NoSuchOption, words: Sequence[str]) -> str:
    """Suggest the nearest option, or the override that was probably meant if the command takes overrides."""
    command = error.ctx.command if error.ctx else None
    parameters = command.params if command else []
    names = [name for parameter in parameters if isinstance(parameter, click.Option) for name in parameter.opts]
    names += error.ctx.help_option_names if error.ctx else []
    close = get_close_matches(error.option_name.lstrip("-"), [name.lstrip("-") for name in names], 1, cutoff=0.75)
    if close:
        return f"Did you mean '--{close[0]}'?"
    if not any(parameter.name == "overrides" for parameter in parameters):
        return ""
    key = error.option_name.lstrip("-")
    spelled = key if key in GROUPS else _known_key(key)
    if not spelled:
        return "Keys of a run are written KEY=VALUE, without dashes."
    return f"Hydra writes {_assignment(error.option_name, words, spelled)}, without dashes."


def _assignment(word: str, words: Sequence[str], key: str = "") -> str:
    """The override for an option-like word: `method=lora` for `--method lora` and `--method=lora`."""
    key = key or word.lstrip("-")
    place = next((i for i, given in enumerate(words) if given.partition("=")[0] == word), None)
    if place is None:
        return f"{key}=VALUE"
    _, equals, value = words[place].partition("=")
    following = words[place + 1] if place + 1 < len(words) else ""
    if not equals and following and "=" not in following and not following.startswith("-"):
        value = following
    return f"{key}={value or 'VALUE'}"


def _known_key(word: str) -> str:
    """The configuration key with a spelling similar to `word`; empty if there is none."""
    from sdsbench.runs.configuration.compose import compose_tree, flat_keys

    tree, _ = compose_tree([])
    known = sorted(flat_keys(tree) if tree is not None else [], key=lambda key: not key.startswith("protocol."))
    keys = {key.rsplit(".", 1)[-1]: key for key in known}  # of keys with equal last part, one outside `protocol` wins
    close = get_close_matches(word.rsplit(".", 1)[-1], keys, 1, cutoff=0.75)
    return keys[close[0]] if close else ""


def _help(error: click.ClickException) -> str:
    context = getattr(error, "ctx", None)
    return f" ({context.command_path} --help)" if context else ""
