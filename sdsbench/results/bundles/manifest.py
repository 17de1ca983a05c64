"""bundle.json, the manifest of a bundle: its files with their hashes, and the software that its runs were made with."""

from __future__ import annotations

from pydantic import Field, ValidationError

from sdsbench.core.allowed_names import RunId
from sdsbench.core.errors import DamagedFile
from sdsbench.core.reading import FileContent, first_fault
from sdsbench.core.record import Label

FILE = "bundle.json"
RUNS, PLAN, LOCK = "runs", "plan", "requirements.lock"
"""Paths inside a bundle of the run folders, the frozen plan and the lock of package versions."""


class Entry(FileContent):
    """One file of the bundle: its sha256 and its size in bytes."""

    sha256: str = Field(pattern="^[0-9a-f]{64}$")
    bytes: int = Field(ge=0)


class BundleManifest(FileContent):
    """The manifest: hashes of files and adapters; the hashes of code, weights and data are in the records."""

    format: int = Field(ge=1, le=1)
    name: Label
    git_commit: str | None  # of the checkout that wrote the bundle
    versions: dict[str, str]  # package -> version in that environment
    verdicts_only: bool = False  # no question or answer texts, no plan, of step logs only probe lines
    plugins: list[Label]  # plugin modules that its runs import
    adapters: dict[RunId, str]  # sha256 of the trained tensors of a run, which are not in the bundle
    files: dict[str, Entry]
    checksum: str = ""

    def sealed(self) -> BundleManifest:
        """A copy with the checksum over all other fields."""
        return self.model_copy(update={"checksum": self.seal()})

    @classmethod
    def read(cls, content: bytes, where: object) -> BundleManifest:
        """Parse bundle.json. Raises DamagedFile if it does not match its schema or its checksum."""
        try:
            manifest = cls.model_validate_json(content)
            if manifest.checksum != manifest.seal():
                raise DamagedFile(f"{where}: {FILE} does not match its checksum.")
        except ValidationError as error:
            raise DamagedFile(f"{where}: {FILE} is no manifest of format 1: {first_fault(error)}.") from None
        return manifest
