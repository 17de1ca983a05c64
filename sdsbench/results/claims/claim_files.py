"""Files of claims: results/claims.yaml of this project and those that plugins register."""

from __future__ import annotations

from pathlib import Path

from sdsbench.core.errors import ConfigError, DamagedFile, Problem, Unavailable
from sdsbench.core.limits import MANIFEST
from sdsbench.core.package import bundled_folder
from sdsbench.core.registry import Registry
from sdsbench.core.yaml_text import read_yaml
from sdsbench.results.claims.claim import Claim

PAPERS = bundled_folder("paper", "results/paper").parent / "claims.yaml"
"""Path of a checkout's results/claims.yaml, which sdsbench.studies registers."""
FILES: Registry[Path] = Registry("file of claims")


def register_claims(name: str, path: Path) -> None:
    """Let `path` (a claims.yaml) be judged with all others. Raises ValueError if another file has the name."""
    FILES.register(name, path)


def read(path: Path) -> list[Claim]:
    """All claims of a file. Raises Unavailable if it does not exist, DamagedFile if a claim does not fit the schema."""
    if not path.is_file():
        raise Unavailable(
            f"{path}: no such file of claims. Give one with --claims (results/claims.yaml of a checkout)."
        )
    try:
        return [Claim.model_validate(entry) for entry in read_yaml(path, MANIFEST)["claims"]]
    except (ValueError, KeyError, TypeError) as error:  # pydantic's ValidationError is a ValueError
        raise DamagedFile(f"{path}: not a list of claims: {error}") from None


def read_all() -> dict[str, tuple[Claim, Path]]:
    """Claims of all registered files by id, each with its file.

    Raises Unavailable and DamagedFile as `read` does, ConfigError if two files have a claim of the same id.
    """
    found: dict[str, tuple[Claim, Path]] = {}
    for path in dict.fromkeys(FILES.lookup(name) for name in FILES):
        for claim in read(path):
            if claim.id in found:
                advice = f"Both {found[claim.id][1]} and {path} have it."
                raise ConfigError([Problem("claim", claim.id, "ids that differ between all files of claims", advice)])
            found[claim.id] = (claim, path)
    return found


def chosen(path: Path | None) -> dict[str, tuple[Claim, Path]]:
    """The claims of one file (the option --claims), or of all registered ones; raises as `read` and `read_all` do."""
    return read_all() if path is None else {claim.id: (claim, path) for claim in read(path)}
