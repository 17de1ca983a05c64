"""Hydra's own command line, for multirun and for looking at configurations."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

import hydra
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from sdsbench.core import plugins
from sdsbench.core.errors import ConfigError, Interrupted, Problem, SdsbenchError
from sdsbench.runs.aggregate import execute_members, member_runs
from sdsbench.runs.configuration import resolvers
from sdsbench.runs.configuration.choices import GROUPS, conf_folder
from sdsbench.runs.configuration.compose import compose_tree, plugins_of, to_run_config
from sdsbench.runs.configuration.overrides import one_line, parse, search_path, with_search_path
from sdsbench.tasks import base as tasks


def run_hydra(flags: Sequence[str], words: Sequence[str], config_dirs: Sequence[str]) -> int:
    """Hand the command line to Hydra; returns the highest exit code of its jobs, 130 after one that was interrupted.

    Raises ConfigError where Hydra cannot compose; then no job has run.
    """
    resolvers.register()
    overrides, folders = with_search_path(words, config_dirs)
    folders += map(str, plugins.conf_folders(plugins_of(parse(overrides)[0])))
    codes = [0]

    @hydra.main(config_path=str(conf_folder()), config_name="config", version_base="1.3")
    def job(composed: DictConfig) -> None:
        try:
            codes.append(_run(composed, folders))
        except Interrupted as error:
            print(f"sdsbench: {error}", file=sys.stderr)
            raise SystemExit(error.exit_code) from None  # Hydra would start the next job after any other exception
        except SdsbenchError as error:  # one failing run never stops the others
            print(f"sdsbench: {error}", file=sys.stderr)
            codes.append(error.exit_code)

    before = sys.argv, os.environ.get("HYDRA_FULL_ERROR")
    sys.argv = ["sdsbench", *flags, *search_path(folders), *overrides]
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra raises its errors instead of printing them and ending with code 1
    try:
        job()
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError(_culprits(overrides, folders) or [_whole(overrides, error)]) from None
    except SystemExit as ended:
        return int(ended.code or 0)
    finally:
        sys.argv = before[0]
        _restore("HYDRA_FULL_ERROR", before[1])
    return max(codes)


def _run(composed: DictConfig, config_dirs: Sequence[str]) -> int:
    """One job of Hydra's: a run, or the members of an aggregate task; returns the exit code."""
    config = to_run_config(composed)
    task = tasks.build(config.task)
    if not task.members:
        from sdsbench.runs.execute import execute

        execute(config)
        return 0
    outer = GlobalHydra.instance().hydra  # composing the members replaces it
    try:
        members = member_runs(config, list(HydraConfig.get().overrides.task), config_dirs)
        return execute_members(task, members)
    finally:
        GlobalHydra.instance().hydra = outer


def _culprits(words: Sequence[str], config_dirs: Sequence[str]) -> list[Problem]:
    """The problems of a command line that Hydra refused as a whole, each value of a sweep looked at alone."""
    parsed, problems = parse(words)
    own = [override for override in parsed if not override.key_or_group.startswith(("hydra.", "hydra/"))]
    for number in range(max((len(_values(override)) for override in own), default=0)):
        lines = [_values(override)[min(number, len(_values(override)) - 1)] for override in own]
        problems += compose_tree(lines, config_dirs)[1]
    return list(dict.fromkeys(problems))


def _values(override: Override) -> list[str]:
    """The overrides of one value each that a sweep stands for."""
    line = str(override.input_line)
    if not override.is_sweep_override():
        return [line]
    key = line.partition("=")[0]
    try:
        return [f"{key}={value}" for value in override.sweep_string_iterator()] or [line]
    except (HydraException, ValueError, NotImplementedError):  # such as glob(*): Hydra fills it in
        return [line]


def _whole(words: Sequence[str], error: Exception) -> Problem:
    return Problem("command line", " ".join(words)[:200], f"overrides of {', '.join(GROUPS)} and keys", one_line(error))


def _restore(name: str, value: str | None) -> None:
    if value is None:
        del os.environ[name]
    else:
        os.environ[name] = value
