"""bundle.json: what a bundle holds, with a hash for every file, and what its runs were made with."""

from __future__ import annotations

from pydantic import Field, ValidationError

from sdsbench.core.allowed_names import RunId
from sdsbench.core.errors import DamagedFile
from sdsbench.core.reading import FileContent, first_fault
from sdsbench.core.record import Label

FILE = "bundle.json"
RUNS, PLAN, LOCK = "runs", "plan", "requirements.lock"
"""Where the run folders, the frozen plan and the lock of package versions stand in a bundle."""


class Entry(FileContent):
    sha256: str = Field(pattern="^[0-9a-f]{64}$")
    bytes: int = Field(ge=0)


class BundleManifest(FileContent):
    """The manifest. Hashes of code, weights and data stand in the records; here are those that records do not hold."""

    format: int = Field(ge=1, le=1)
    name: Label
    git_commit: str | None  # of the checkout that wrote the bundle
    versions: dict[str, str]  # packages there
    verdicts_only: bool = False  # without texts of questions and answers, the plan and most of the step logs
    plugins: list[Label]  # modules that its runs need beside this package
    adapters: dict[RunId, str]  # sha256 of the trained tensors of a run, which are not in the bundle
    files: dict[str, Entry]
    checksum: str = ""

    def sealed(self) -> BundleManifest:
        return self.model_copy(update={"checksum": self.seal()})

    @classmethod
    def read(cls, content: bytes, where: object) -> BundleManifest:
        """Raises DamagedFile where it does not match its schema or its checksum."""
        try:
            manifest = cls.model_validate_json(content)
            if manifest.checksum != manifest.seal():
                raise DamagedFile(f"{where}: {FILE} does not match its checksum.")
        except ValidationError as error:
            raise DamagedFile(f"{where}: {FILE} is no manifest of format 1: {first_fault(error)}.") from None
        return manifest
