"""Calling Hydra's own command line, for multirun and for printing configurations."""

from __future__ import annotations

import atexit
import logging
import math
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType

import hydra
import psutil
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.types import Glob, Override
from hydra.errors import HydraException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from sdsbench.core import plugins
from sdsbench.core.console import print_wrapped
from sdsbench.core.errors import ConfigError, Interrupted, Problem, SdsbenchError, TrainingFailed
from sdsbench.core.files import disk_errors
from sdsbench.core.record import headline
from sdsbench.runs.aggregate import execute_announced, execute_members, member_runs
from sdsbench.runs.configuration import environment
from sdsbench.runs.configuration.choices import GROUPS, conf_folder, options, own_groups
from sdsbench.runs.configuration.compose import compose_tree, plugins_of, to_run_config
from sdsbench.runs.configuration.foreign import environment_problems
from sdsbench.runs.configuration.overrides import (
    MOST,
    chosen_by_group,
    one_line,
    parse,
    search_path,
    values_of,
    with_search_path,
)
from sdsbench.runs.configuration.schema import RunConfig
from sdsbench.tasks import base as tasks
from sdsbench.training.signals import StopRequest


def run_hydra(flags: Sequence[str], words: Sequence[str], config_dirs: Sequence[str]) -> int:
    """Pass the command line to Hydra; return the highest exit code of its jobs (130: a job was interrupted).

    A job returns its headline score to Hydra's sweeper. A failed job raises in its own process, so that launchers and
    sweepers notice; the other jobs still run. Raises ConfigError if Hydra cannot compose; then no job has run.
    """
    environment.register()
    overrides, folders = with_search_path(words, config_dirs)
    parsed = parse(overrides)[0]
    if wrong := [problem for override in parsed if (problem := chosen_by_group(override))]:
        raise ConfigError(wrong)
    folders += map(str, plugins.conf_folders(plugins_of(parsed)))
    _refuse_many(overrides, folders)
    if folders and (problems := _problems_of_choices(overrides, folders)):  # before Hydra acts on these files
        raise ConfigError(problems)
    reported: list[SdsbenchError] = []  # errors printed by jobs of this process
    here = os.getpid()

    @hydra.main(config_path=str(conf_folder()), config_name="config", version_base="1.3")
    def job(composed: DictConfig) -> float | None:
        try:
            return _run(composed, folders)
        except SdsbenchError as error:
            print_wrapped(f"sdsbench: {error}", stderr=True)
            reported.append(error)
            if isinstance(error, Interrupted) and (os.getpid() == here or os.environ.get(_EXECUTOR) == _SLURM):
                # SystemExit, because after an exception Hydra would start the next job of this process. A submitit job
                # that SLURM preempts must leave no result: SLURM requeues it, and the waiting process keeps waiting.
                raise SystemExit(error.exit_code) from None
            if os.environ.get(_EXECUTOR) == _SLURM:
                atexit.register(_end_with, error.exit_code)
            raise

    line = [*flags, *search_path(folders), *overrides]
    in_slurm = f"hydra/launcher=submitit_{_SLURM}" in overrides
    try:
        with _surroundings(line), _StopJobs(in_slurm), disk_errors(_output_root(overrides)):
            job()
    except SdsbenchError as error:
        if error not in reported:
            raise
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError(_culprits(overrides, folders) or [_whole(overrides, error)]) from None
    except SystemExit as ended:
        return int(ended.code or 0)
    except Exception as error:
        if type(error).__module__.partition(".")[0] not in _LAUNCHERS:
            raise
        raise TrainingFailed(f"a job was lost: {type(error).__name__}: {one_line(error)}") from None
    return max((error.exit_code for error in reported), default=0)


@contextmanager
def _surroundings(line: Sequence[str]) -> Iterator[None]:
    """The command line where Hydra looks for it, and this process as it was once Hydra is done."""
    argv, full_error = sys.argv, os.environ.get("HYDRA_FULL_ERROR")
    handlers, level = logging.root.handlers[:], logging.root.level  # Hydra sets its own, at INFO for every library
    sys.argv = ["sdsbench", *line]
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra raises its errors instead of printing them and ending with code 1
    try:
        yield
    finally:
        sys.argv = argv
        if full_error is None:
            del os.environ["HYDRA_FULL_ERROR"]
        else:
            os.environ["HYDRA_FULL_ERROR"] = full_error
        logging.root.handlers[:] = handlers
        logging.root.setLevel(level)


_LAUNCHERS = ("submitit", "joblib", "optuna")
_EXECUTOR, _SLURM = "SUBMITIT_EXECUTOR", "slurm"  # submitit sets this variable in its jobs
_stopped = False  # a stop signal has arrived: this process starts no further job


class _StopJobs(StopRequest):
    """Forwards a stop signal to all job processes of a launcher; each saves its run's state and ends.

    Forwards SIGTERM: a terminal's Ctrl-C has reached the jobs already, and a second SIGINT would end them without
    saving. Jobs submitted to SLURM continue; only the waiting for them ends.
    """

    def __init__(self, in_slurm: bool) -> None:
        super().__init__()
        self._in_slurm = in_slurm

    def __enter__(self) -> StopRequest:
        global _stopped
        _stopped = False
        return super().__enter__()

    def _note(self, number: int, frame: FrameType | None) -> None:
        global _stopped
        _stopped = True
        if self._in_slurm:
            with suppress(OSError):  # not print(): the signal may have interrupted another print
                os.write(2, b"\nThe jobs stay with SLURM: `squeue --me` lists them, `scancel` ends them.\n")
            raise KeyboardInterrupt
        super()._note(number, frame)
        for process in psutil.Process().children(recursive=True):
            with suppress(psutil.Error):
                process.terminate()


def _end_with(code: int) -> None:
    """End a failed submitit job with its exit code, so that SLURM does not report it as COMPLETED.

    submitit itself counts the job as successful, with the error as result. Registered with atexit, so that it runs
    after that result has been written.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _output_root(overrides: Sequence[str]) -> Path:
    """The folder in which Hydra creates its own output folder."""
    given = [word.partition("=")[2] for word in overrides if word.lstrip("+").startswith("output_root=")]
    return Path(given[-1] if given else str(RunConfig.model_fields["output_root"].default))


def _run(composed: DictConfig, config_dirs: Sequence[str]) -> float | None:
    """Run one Hydra job. Raises Interrupted without running it if an earlier job of this process was interrupted."""
    global _stopped
    if _stopped:
        raise Interrupted("it had not begun")
    try:
        return _score(composed, config_dirs)
    except Interrupted:
        _stopped = True
        raise


def _score(composed: DictConfig, config_dirs: Sequence[str]) -> float | None:
    """Execute a run and return its headline score; for an aggregate task (glue), the mean over its members."""
    config = to_run_config(composed, list(environment_problems(composed)))
    task = tasks.build(config.task)
    if not task.members:
        return headline(execute_announced(config))
    outer = GlobalHydra.instance().hydra  # composing the members replaces Hydra's global state
    try:
        members = member_runs(config, list(HydraConfig.get().overrides.task), config_dirs)
        code, score = execute_members(task, members)
    finally:
        GlobalHydra.instance().hydra = outer
    if code:
        error = TrainingFailed(f"{config.task.name}: not every member has finished")
        error.exit_code = code
        raise error
    return score


def _refuse_many(words: Sequence[str], config_dirs: Sequence[str]) -> None:
    """Raises ConfigError for a sweep with more than MOST runs, which Hydra would first list in full."""
    runs = math.prod(len(_values(override, config_dirs)) for override in parse(words)[0])
    if runs > MOST:
        raise ConfigError([Problem("command line", f"{runs:,} runs", f"at most {MOST:,} runs of one sweep")])


def _problems_of_choices(words: Sequence[str], config_dirs: Sequence[str]) -> list[Problem]:
    """The problems in the config files chosen on the command line, for every value of a sweep."""
    groups = (*GROUPS, *own_groups(config_dirs))
    return _composed_alone([one for one in parse(words)[0] if one.key_or_group in groups], config_dirs)


def _culprits(words: Sequence[str], config_dirs: Sequence[str]) -> list[Problem]:
    """The problems of a command line that Hydra refused, found by composing each value of a sweep separately."""
    parsed, problems = parse(words)
    own = [override for override in parsed if not override.key_or_group.startswith(("hydra.", "hydra/"))]
    return list(dict.fromkeys([*problems, *_composed_alone(own, config_dirs)]))


def _composed_alone(own: Sequence[Override], config_dirs: Sequence[str]) -> list[Problem]:
    """The problems found in a series of compositions that uses each value of each override at least once."""
    problems: list[Problem] = []
    values = [_values(override, config_dirs) for override in own]
    for number in range(max(map(len, values), default=0)):
        lines = [lines[min(number, len(lines) - 1)] for lines in values]
        problems += compose_tree(lines, config_dirs)[1]
    return list(dict.fromkeys(problems))


def _values(override: Override, config_dirs: Sequence[str]) -> list[str]:
    """Expand a sweep override into single-valued overrides."""
    line = str(override.input_line)
    if not override.is_sweep_override():
        return [line]
    key = line.partition("=")[0]
    if isinstance(glob := override.value(), Glob):
        return [f"{key}={choice}" for choice in glob.filter(options(override.key_or_group, config_dirs))] or [line]
    try:
        return [f"{key}={value}" for value in values_of(override)] or [line]
    except (HydraException, NotImplementedError):  # an interval, which only sweepers interpret
        return [line]
    except ValueError as error:
        raise ConfigError([Problem(key, override.get_value_string(), "a sweep that ends", one_line(error))]) from None


def _whole(words: Sequence[str], error: Exception) -> Problem:
    return Problem("command line", " ".join(words)[:200], f"overrides of {', '.join(GROUPS)} and keys", one_line(error))
