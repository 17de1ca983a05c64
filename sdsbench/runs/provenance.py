"""What produced a number: package versions, commit, code, device."""

from __future__ import annotations

import hashlib
import importlib.metadata
import subprocess
from functools import lru_cache
from pathlib import Path

from sdsbench.core.package import PACKAGE

PACKAGES = (
    "torch", "transformers", "tokenizers", "datasets", "evaluate", "lm_eval", "hydra-core", "numpy", "scikit-learn",
    "scipy", "safetensors", "math-verify",
)  # fmt: skip
DECIDE_NUMBERS = ("data", "evaluation", "methods", "models", "tasks", "training", "runs")
"""Parts of the package whose code can change a run's numbers; tables and reports cannot."""


def package_versions() -> dict[str, str]:
    """Installed versions of the packages that can change a run's numbers."""
    return {name: importlib.metadata.version(name) for name in PACKAGES}


@lru_cache(maxsize=1)
def code_hash() -> str:
    """sha256 over the Python files that can change a run's numbers."""
    root = PACKAGE
    digest = hashlib.sha256()
    for part in DECIDE_NUMBERS:
        path = root / part
        for file in sorted(path.rglob("*.py")) if path.is_dir() else [path]:
            digest.update(file.relative_to(root).as_posix().encode() + b"\0" + file.read_bytes())
    return digest.hexdigest()


@lru_cache(maxsize=1)
def git_state() -> tuple[str | None, bool | None]:
    """(commit, whether tracked files differ from it) of the checkout, or (None, None) for an installed package."""
    root = PACKAGE.parent
    if not (root / ".git").exists():
        return None, None
    try:
        commit = _git(root, "rev-parse", "HEAD").strip()
        return commit, bool(_git(root, "status", "--porcelain", "--untracked-files=no", "--", "sdsbench", "conf"))
    except (OSError, subprocess.CalledProcessError):
        return None, None


def _git(root: Path, *arguments: str) -> str:
    return subprocess.run(["git", "-C", str(root), *arguments], capture_output=True, text=True, check=True).stdout
