"""A run on embedded data needs no network."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import pytest

from sdsbench.runs.configuration.compose import compose_run
from sdsbench.runs.execute import execute
from tests.sweeps.tools import TINY
from tests.tools import QUIET


def test_run_on_embedded_data_opens_no_connection(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    connections: list[Any] = []
    for name in ("connect", "connect_ex", "bind", "sendto"):
        monkeypatch.setattr(socket.socket, name, lambda _, *where: connections.append(where))
    monkeypatch.setattr(socket, "getaddrinfo", lambda *where, **_: connections.append(where) or [])
    record = execute(compose_run([*TINY, "method=lora", f"output_root={tmp_path}"]), QUIET)
    assert record.status == "done" and not connections
