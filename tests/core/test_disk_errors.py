"""Errors of the disk name a file or folder, and their advice fits the cause."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
from safetensors import SafetensorError

from sdsbench.core.errors import DiskRefuses
from sdsbench.core.files import disk_errors, refused_by_system, write_atomic

ADVICE = {
    errno.ENOSPC: "make room",
    errno.EDQUOT: "make room",
    errno.EROFS: "choose a folder that can be written",
    errno.EFBIG: "choose a disk that takes files of this size",
}


@pytest.mark.parametrize("code", ADVICE, ids=errno.errorcode.get)
def test_advice_fits_the_cause(code: int) -> None:
    error = OSError(code, os.strerror(code), "folder/table.md")
    refused = refused_by_system(error)
    assert isinstance(refused, DiskRefuses)
    with pytest.raises(DiskRefuses) as caught, disk_errors(Path("folder")):
        raise error
    for text in (str(refused), str(caught.value)):
        assert ADVICE[code] in text and "folder/table.md" in text
        assert ("make room" in text) == (code in (errno.ENOSPC, errno.EDQUOT))


def test_missing_rights_are_not_a_lack_of_room(tmp_path: Path) -> None:
    with pytest.raises(DiskRefuses, match="get the right to write there") as caught, disk_errors(tmp_path):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(tmp_path / "run"))
    assert "make room" not in str(caught.value)


def test_error_of_safetensors_names_the_folder() -> None:
    """safetensors reports a full disk by text alone, without a path."""
    with pytest.raises(DiskRefuses, match=r"writing below results/runs.*make room"), disk_errors(Path("results/runs")):
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")


def test_failed_write_names_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left") as caught:
        write_atomic(tmp_path / "record.json", "{}")
    assert caught.value.filename == str(tmp_path / "record.json") and not list(tmp_path.iterdir())
