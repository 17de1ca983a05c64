"""The origin of a result: hashes of the code, base weights and data, package versions and commit.

Code is hashed in parts (core/source_hash.py), so that a run depends only on the code that it uses:

    core     training, evaluation, data and model loading, as far as every run goes through them
    method   the method's class and what its module imports beyond core; likewise task and model (its reader)
    data     the generators of embedded data, where the run reads such data
    plugin:NAME   a module given with plugins=[NAME]
"""

from __future__ import annotations

import importlib.metadata
import subprocess
import sysconfig
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path

from sdsbench.core.errors import Unavailable
from sdsbench.core.package import PACKAGE
from sdsbench.core.record import DataUsed, Provenance, Record
from sdsbench.core.source_hash import hash_of, reachable
from sdsbench.data import generators
from sdsbench.methods import base as methods
from sdsbench.models import readers
from sdsbench.models.location import weights_of
from sdsbench.runs.configuration.schema import RunConfig
from sdsbench.runs.start_from import adapter_hash
from sdsbench.tasks import base as tasks

PLUGIN = "plugin:"
CODE, WEIGHTS, DATA, START = "code of ", "base weights", "data ", "start_from"
"""Prefixes of the names in an origin (`recorded_origin`)."""
PACKAGES = (
    "torch", "transformers", "tokenizers", "datasets", "lm_eval", "hydra-core", "numpy", "scikit-learn",
    "scipy", "safetensors", "math-verify", "sympy", "latex2sympy2_extended", "antlr4-python3-runtime", "rouge_score",
    "sacrebleu", "pillow",
)  # fmt: skip
NUMERIC = ("data", "evaluation", "methods", "models", "tasks", "training")
RESULT_MODULES = ("prepare", "train", "finish", "evaluate", "families", "run_data", "start_from")
"""Modules of runs/ that affect results; the other modules of that folder name, place, record and report runs."""


def plugins_in(parts: Iterable[str]) -> list[str]:
    """The plugins' names among the names of code parts."""
    return [part.removeprefix(PLUGIN) for part in parts if part.startswith(PLUGIN)]


def package_versions(modules: Iterable[str] = ()) -> dict[str, str]:
    """Installed versions of the packages that can affect results, and of those that contain these modules."""
    tops = {module.partition(".")[0] for module in modules}
    by_module = importlib.metadata.packages_distributions() if tops else {}  # reads the list of every package's files
    others = {name for top in tops for name in by_module.get(top, ()) if name != "sdsbench"}
    return {name: importlib.metadata.version(name) for name in (*PACKAGES, *sorted(others))}


def code_parts(config: RunConfig) -> dict[str, dict[str, Path]]:
    """The source files, by module name, of every part of the code that this run's numbers depend on."""
    core = _core()
    parts: dict[str, Sequence[str]] = {
        "method": _modules_of(methods.lookup(config.method.name)[0]),
        "task": _modules_of(tasks.lookup(config.task.name)[0]),
        "model": readers.modules_of(config.model),
        "data": _generator_modules(config),
    }
    files = {part: _beyond_core(tuple(modules)) for part, modules in parts.items()}
    files |= {f"{PLUGIN}{name}": _beyond_core((name,)) for name in config.plugins}
    return {"core": dict(core)} | {part: found for part, found in files.items() if found}


def code_hashes(config: RunConfig) -> dict[str, str]:
    """sha256 of each part of the code (see the module docstring); parts without files of their own are left out."""
    return {part: hash_of(files) for part, files in code_parts(config).items()}


def plugin_packages(config: RunConfig) -> list[str]:
    """Top-level packages other than sdsbench whose code the run uses, including those that its method imports."""
    modules = (module for files in code_parts(config).values() for module in files)
    own = {top for module in modules if (top := module.partition(".")[0]) != PACKAGE.name}
    return sorted({*own, *methods.lookup(config.method.name)[0].packages})


@lru_cache(maxsize=1)
def _core() -> Mapping[str, Path]:
    return reachable([f"{PACKAGE.name}.runs.{name}" for name in RESULT_MODULES], _decides_numbers)


def _decides_numbers(module: str) -> bool:
    """Whether a module of this package can affect results. Probes only measure and cannot."""
    package, _, rest = module.partition(".")
    folder, _, inside = rest.partition(".")
    if package != PACKAGE.name:
        return False
    if folder == "runs":
        return inside in RESULT_MODULES
    return folder in NUMERIC and not inside.startswith("probes")


@lru_cache(maxsize=1024)
def _beyond_core(modules: tuple[str, ...]) -> dict[str, Path]:
    """Source files that these modules import, directly or indirectly, from their own packages, without core's files.

    Of sdsbench, only the folders that affect results and the synthetic data are included.
    """
    tops = {module.partition(".")[0] for module in modules}

    def follow(module: str) -> bool:
        top = module.partition(".")[0]
        if top == PACKAGE.name:
            return _decides_numbers(module) or module.startswith(f"{PACKAGE.name}.synthetic")
        return top in tops

    return {name: path for name, path in reachable(modules, follow).items() if name not in _core()}


def _modules_of(kind: type) -> tuple[str, ...]:
    """The modules of a class and of the classes that it inherits from."""
    return tuple(dict.fromkeys(c.__module__ for c in kind.__mro__ if c is not object))


def _generator_modules(config: RunConfig) -> tuple[str, ...]:
    """The modules that generate this run's embedded data; none for other sources."""
    if config.data.source != "embedded":
        return ()
    sets = {config.task.train_set, *(e.dataset for e in tasks.build(config.task).evaluations())}
    return tuple(generators.generator_name(name).partition(":")[0] for name in sorted(sets))


def commit() -> str | None:
    """The commit of the checkout that this package lies in; None for an installed package."""
    return _git(PACKAGE.parent, "rev-parse", "HEAD").strip() or None if (PACKAGE.parent / ".git").exists() else None


def uncommitted(config: RunConfig) -> list[str] | None:
    """Modules of the run's code that differ from every commit: changed, untracked, or outside any git checkout.

    Modules of installed packages are left out, since their versions are recorded; None if all modules are installed.
    """
    installed = [Path(sysconfig.get_path(name)).resolve() for name in ("purelib", "platlib")]
    files = {path.resolve(): name for part in code_parts(config).values() for name, path in part.items()}
    files = {path: name for path, name in files.items() if not any(path.is_relative_to(root) for root in installed)}
    if not files:
        return None
    changed = {path for path in files if _checkout(path.parent) is None}
    for root in {_checkout(path.parent) for path in files} - {None}:
        assert root is not None
        inside = [str(path) for path in files if _checkout(path.parent) == root]
        lines = _git(root, "status", "--porcelain", "--untracked-files=all", "--ignored", "-z", "--", *inside)
        changed |= {root / line[3:] for line in lines.split("\0") if line}
    return sorted(name for path, name in files.items() if path in changed)


@lru_cache(maxsize=256)
def _checkout(folder: Path) -> Path | None:
    """The nearest folder above that is a git checkout."""
    return next((parent for parent in (folder, *folder.parents) if (parent / ".git").exists()), None)


def _git(root: Path, *arguments: str) -> str:
    """Output of a git command; empty if it fails or git is not installed."""
    try:
        done = subprocess.run(["git", "-C", str(root), *arguments], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return ""
    return done.stdout


def recorded_origin(provenance: Provenance) -> dict[str, str]:
    """name -> hash of everything that must be equal for two runs of one configuration to have the same result."""
    data = data_hashes(provenance.data)
    return origin(provenance.code, provenance.weights.fingerprint, data, provenance.start)


def data_hashes(data: Sequence[DataUsed]) -> dict[str, str]:
    """Fingerprints of the rows that a run reads, by `data <set> <split>`."""
    return {f"{DATA}{used.dataset} {used.split}": used.fingerprint for used in data}


def origin(code: Mapping[str, str], weights: str, data: Mapping[str, str], start: str | None) -> dict[str, str]:
    """An origin (name -> hash) from hashes of code parts, base weights, data and the tensors of `start_from`."""
    found = {f"{CODE}{part}": digest for part, digest in code.items()} | {WEIGHTS: weights} | dict(data)
    return found if start is None else found | {START: start}


def changed_parts(config: RunConfig, record: Record) -> list[str]:
    """Names of code parts and base weights that have changed since the record; fast enough for thousands of runs.

    Data is not compared, and weights that no longer exist on this machine count as unchanged.
    """
    if record.provenance is None:
        return []
    then = recorded_origin(record.provenance)
    return differing(then, current(config, then, data_of(then), []))


def differing(then: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    """Names whose hashes differ or that only one side has."""
    return sorted(name for name in then.keys() | now.keys() if then.get(name) != now.get(name))


def data_of(then: Mapping[str, str]) -> dict[str, str]:
    """The entries of an origin that are data fingerprints."""
    return {name: digest for name, digest in then.items() if name.startswith(DATA)}


def current(config: RunConfig, then: Mapping[str, str], data: Mapping[str, str], remarks: list[str]) -> dict[str, str]:
    """The origin that the run would have now; missing weights count as unchanged, with a message in `remarks`."""
    try:
        weights = weights_of(config.model).fingerprint
    except Unavailable as error:
        remarks.append(f"its base weights could not be compared with what is here now: {error}")
        weights = then[WEIGHTS]
    try:
        start = adapter_hash(config)
    except Unavailable as error:
        remarks.append(f"what it started from could not be compared with what is here now: {error}")
        start = then.get(START)
    return origin(code_hashes(config), weights, data, start)
