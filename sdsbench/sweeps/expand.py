"""Points of a sweep -> checked configurations, fast: Hydra composes once for each set of group choices.

A composition takes about 60 ms, and a plan may have 10,000 runs. So the composed tree is cached, the values of a point
are set in a copy, and only the interpolations that depend on a changed value are resolved again.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from sdsbench.core.errors import ConfigError, Problem
from sdsbench.runs.configuration.choices import GROUPS
from sdsbench.runs.configuration.compose import compose_tree, flat_keys, from_tree, key_problem
from sdsbench.runs.configuration.foreign import raw_values, unresolved
from sdsbench.runs.configuration.schema import RunConfig
from sdsbench.sweeps.blocks import Axes
from sdsbench.tasks import base as tasks

Point = dict[str, str]  # key -> value, in Hydra's override syntax
_UNFOLDING = ("task.members", "protocol.seeds")
_SHOWN = 20  # largest number of problems that a message lists


def product(axes: Axes) -> Iterator[Point]:
    """Every combination of the axes' values; the last axis varies fastest."""
    for values in itertools.product(*axes.values()):
        yield dict(zip(axes, values, strict=True))


class Composer:
    """Converts points to configurations and collects problems, so that one message can report all of them."""

    def __init__(self, placing: Mapping[str, str], config_dirs: Sequence[str] = ()) -> None:
        self.placing, self.config_dirs = dict(placing), config_dirs
        self._structures: dict[Any, _Structure | None] = {}
        self._problems: dict[str, Problem] = {}
        self._unfolded: dict[Any, Axes] = {}
        self.unresolved: dict[str, str] = {}  # placing keys with `${oc.env:...}`, unresolved

    def configuration(self, point: Point) -> RunConfig | None:
        """The checked configuration of a point; None if it has a problem, which is collected."""
        overrides = self.placing | point
        structural = tuple(f"{key}={value}" for key, value in overrides.items() if _structural(key, value))
        values = {key: value for key, value in overrides.items() if not _structural(key, value)}
        which = (structural, tuple(values))
        try:
            if which not in self._structures:
                self._structures[which] = None  # report a structure that cannot be composed only once
                self._structures[which] = self._compose(structural, values)
            structure = self._structures[which]
            return from_tree(structure.resolved(_parsed(values))) if structure else None
        except ConfigError as error:
            self.collect(error)
            return None

    def collect(self, error: ConfigError) -> None:
        """Keep the problems of an error for `raise_problems`; equal problems are kept once."""
        self._problems |= {str(problem): problem for problem in error.problems}

    def points(self, point: Point, seeded: bool = False) -> list[Point]:
        """Expand a point to one point for each member of an aggregate task (task=glue) and each seed of its protocol.

        Seeds are not expanded if the point sets `seed` or no protocol, or if they are chosen elsewhere (`seeded`).
        """
        seeded = seeded or any(key.split(".")[0] in ("seed", "seeds") for key in point)
        deciding = {key: value for key, value in point.items() if _structural(key, value) or key in _UNFOLDING}
        which = (*deciding.items(), seeded)
        if which not in self._unfolded:  # composed once for all points that differ only in other values
            self._unfolded[which] = self._axes(self.configuration(point), "protocol" in point and not seeded)
        axes = self._unfolded[which]
        kept = {key: value for key, value in point.items() if key != "task.members" or "task" not in axes}
        return [kept | more for more in product(axes)]

    @staticmethod
    def _axes(config: RunConfig | None, seeds: bool) -> Axes:
        """The axes that an aggregate task adds (its members), and with `seeds` those of the protocol (its seeds)."""
        axes: Axes = {}
        if config is not None and (members := tasks.build(config.task).members):
            axes["task"] = list(members)
        if config is not None and seeds:
            axes["seed"] = [str(seed) for seed in config.protocol.seeds]
        return axes

    def raise_problems(self) -> None:
        """Raises ConfigError if any point had a problem."""
        if self._problems:
            raise ConfigError(list(self._problems.values()), _SHOWN)

    def _compose(self, structural: Sequence[str], values: Mapping[str, str]) -> _Structure:
        tree, problems = compose_tree(structural, self.config_dirs)
        if tree is not None:
            known = flat_keys(tree)
            overrides = [_override(f"{key}={value}") for key, value in values.items()]
            problems += filter(None, (key_problem(override, tree, known) for override in overrides))
        if problems or tree is None:
            raise ConfigError(problems)
        self.unresolved |= unresolved(tree)
        return _Structure(tree, _parsed(values))


class _Structure:
    """A composed tree, reused for many values of the same keys."""

    def __init__(self, tree: DictConfig, values: Mapping[str, Any]) -> None:
        self.tree = tree
        self._set(values)
        try:
            base = OmegaConf.to_container(tree, resolve=True)
        except (OmegaConfBaseException, KeyError) as error:
            key = getattr(error, "full_key", None) or "config"
            raise ConfigError([Problem(str(key), "${...}", "a value that resolves", str(error)[:300])]) from None
        self.base: Any = base
        texts = {key: text for key, text in raw_values(tree).items() if isinstance(text, str) and "${" in text}
        named = {leaf: text[2:-1] for leaf, text in texts.items() if leaf not in values and text[2:-1] in values}
        self.copies = {leaf: name for leaf, name in named.items() if texts[leaf] == f"${{{name}}}"}
        """Leaves that only copy another key's value, such as `seeds.data: ${seed}`."""
        self.needs = {
            leaf: sorted(_needs(leaf, texts, values))
            for leaf in texts
            if leaf not in values and leaf not in self.copies
        }
        self._known: dict[Any, Any] = {}

    def resolved(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """The tree as plain values, with `values` set and interpolations resolved."""
        plain = _copy(self.base)
        for key, value in values.items():
            _put(plain, key, value)
        for leaf, name in self.copies.items():
            _put(plain, leaf, _copy(values[name]))
        for leaf, needs in self.needs.items():
            if needs:
                _put(plain, leaf, self._interpolated(leaf, needs, values))
        return plain

    def _interpolated(self, leaf: str, needs: Sequence[str], values: Mapping[str, Any]) -> Any:
        which = (leaf, *(repr(values[key]) for key in needs))
        if which not in self._known:
            self._set(values)
            try:
                value = OmegaConf.select(self.tree, leaf)
            except (OmegaConfBaseException, KeyError) as error:
                raise ConfigError(
                    [Problem(leaf, raw_values(self.tree)[leaf], "a value that resolves", str(error)[:300])]
                ) from None
            self._known[which] = OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value
        return _copy(self._known[which])

    def _set(self, values: Mapping[str, Any]) -> None:
        for key, value in values.items():
            OmegaConf.update(self.tree, key, value, merge=False)


def _needs(leaf: str, texts: Mapping[str, str], values: Mapping[str, Any]) -> set[str]:
    """The set keys that an interpolated leaf depends on, directly or through other leaves."""
    found: set[str] = set()
    seen, ahead = {leaf}, [leaf]
    while ahead:
        text = texts[ahead.pop()]
        names = re.findall(r"\$\{(?:oc\.select:)?([\w.]+)[},]", text)
        if text.count("${") != len(names) + len(re.findall(r"\$\{\w+:", text)):
            return set(values)  # an unusual reference: depend on everything
        for name in names:
            found |= {key for key in values if _touches(key, name)}
            further = [key for key in texts if _touches(key, name) and key not in seen]
            seen.update(further)
            ahead += further
    return found


def _touches(key: str, name: str) -> bool:
    return key == name or key.startswith(f"{name}.") or name.startswith(f"{key}.")


def _structural(key: str, value: str) -> bool:
    """Whether an override requires a new composition: a group choice (also `+group=`), plugins, or an interpolation."""
    return key in (*GROUPS, "plugins") or key.startswith("+") or "${" in value


@lru_cache(maxsize=100_000)
def _override(line: str) -> Any:
    return OverridesParser.create().parse_override(line)


@lru_cache(maxsize=100_000)
def _value(line: str) -> Any:
    return _override(line).value()


def _parsed(values: Mapping[str, str]) -> dict[str, Any]:
    return {key: _value(f"{key}={value}") for key, value in values.items()}


def _put(plain: dict[str, Any], key: str, value: Any) -> None:
    *sections, last = key.split(".")
    for section in sections:
        plain = plain[section]
    plain[last] = value


def _copy(plain: Any) -> Any:
    """copy.deepcopy for plain values, ten times as fast."""
    if isinstance(plain, dict):
        return {key: _copy(value) for key, value in plain.items()}
    return [_copy(value) for value in plain] if isinstance(plain, list) else plain
