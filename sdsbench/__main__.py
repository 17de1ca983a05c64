"""`python -m sdsbench` and `sdsbench`: Hydra overrides start a run, a first word that is a verb runs that verb."""

from __future__ import annotations

import importlib
import pkgutil
import sys
from collections.abc import Sequence

from sdsbench.core.errors import SdsbenchError

HELP = """\
sdsbench: does a low-rank method really beat LoRA, on your model and task, by how much, at what cost?

  python -m sdsbench method=sds_lora task=gsm8k       one run: train, evaluate, write a record
  python -m sdsbench method=lora model=micro seed=1   keys and choices: conf/, or `sdsbench ls`
  python -m sdsbench -m method=lora,sds_lora seed=0,1 several runs, one after the other (Hydra's multirun)
  python -m sdsbench --config-dir DIR ...             with your own YAML files beside ours
  python -m sdsbench --cfg job ...                    print the composed configuration (Hydra's flags all work)

verbs (each has --help):
  {verbs}

exit codes: 0 done, 2 bad configuration, 3 data or weights not available, 4 training failed, 130 interrupted
"""


def verbs() -> list[str]:
    """Names of the modules in sdsbench/cli."""
    from sdsbench import cli as package

    return sorted(module.name for module in pkgutil.iter_modules(package.__path__))


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry of both commands; returns the exit code and prints errors as one message, without a traceback."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if words and words[0] in ("--help", "-h"):
        print(HELP.format(verbs=", ".join(verbs())))
        return 0
    try:
        if words and words[0].isidentifier():
            return _verb(words[0], words[1:])
        if words and any(word in ("-m", "--multirun", "--cfg", "-c", "--info", "--hydra-help") for word in words):
            return _hydra(words)
        return _run(words)
    except SdsbenchError as error:
        print(f"sdsbench: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("sdsbench: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        return 0


def _verb(name: str, arguments: list[str]) -> int:
    from sdsbench.core.errors import ConfigError, Problem
    from sdsbench.core.spelling import nearest

    if name not in verbs():
        raise ConfigError([Problem("verb", name, ", ".join(verbs()), nearest(name, verbs()))])
    return importlib.import_module(f"sdsbench.cli.{name}").main(arguments)


def _run(words: Sequence[str]) -> int:
    from sdsbench.runs.aggregate import execute_members, expand

    overrides, config_dirs = split_config_dirs(words)
    configs = expand(overrides, config_dirs)
    if len(configs) > 1:
        return execute_members(overrides, config_dirs)
    from sdsbench.runs.execute import execute

    execute(configs[0])
    return 0


def split_config_dirs(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """(overrides, folders given with --config-dir)."""
    overrides, folders, rest = [], [], iter(words)
    for word in rest:
        if word in ("--config-dir", "-cd"):
            folders.append(next(rest, ""))
        elif word.startswith("--config-dir="):
            folders.append(word.split("=", 1)[1])
        else:
            overrides.append(word)
    return overrides, folders


def _hydra(words: Sequence[str]) -> int:
    """Hydra's own command line, for multirun and for looking at configurations."""
    import hydra
    from omegaconf import DictConfig

    from sdsbench.runs.configuration import resolvers
    from sdsbench.runs.configuration.compose import conf_folder, to_run_config

    resolvers.register()
    codes = [0]

    @hydra.main(config_path=str(conf_folder()), config_name="config", version_base="1.3")
    def job(composed: DictConfig) -> None:
        try:
            config = to_run_config(composed)
            if hasattr(config.task, "members"):  # a task of several runs (glue, vtab)
                codes.append(_members_of_a_job(split_config_dirs(words)[1]))
                return
            from sdsbench.runs.execute import execute

            execute(config)
        except SdsbenchError as error:  # one failing run never stops the others
            print(f"sdsbench: {error}", file=sys.stderr)
            codes.append(error.exit_code)

    sys.argv = ["sdsbench", *words]
    job()
    return max(codes)


def _members_of_a_job(config_dirs: Sequence[str]) -> int:
    """Run the members of the aggregate task of Hydra's current job; returns the highest exit code."""
    from hydra.core.global_hydra import GlobalHydra
    from hydra.core.hydra_config import HydraConfig

    from sdsbench.runs.aggregate import execute_members

    outer = GlobalHydra.instance().hydra  # composing the members replaces it
    try:
        return execute_members(list(HydraConfig.get().overrides.task), config_dirs)
    finally:
        GlobalHydra.instance().hydra = outer


if __name__ == "__main__":
    sys.exit(main())
