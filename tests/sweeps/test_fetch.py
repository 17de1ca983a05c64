"""`sdsbench fetch` with a local stand-in for the hub: runs without a network find the files that it fetched."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from sdsbench.__main__ import main
from sdsbench.data.catalogue import DataSet
from sdsbench.models.location import folder_of
from sdsbench.runs.configuration.compose import compose_run
from sdsbench.sweeps import fetch, placing
from sdsbench.sweeps import plan as plans
from sdsbench.sweeps.blocks import define
from sdsbench.sweeps.freeze import freeze
from tests.conftest import ROOT
from tests.sweeps.tools import tiny_plan

COMMIT = "0123456789abcdef0123456789abcdef01234567"
REPOSITORY = "somebody/micro"


@contextmanager
def hub(files: Path) -> Iterator[str]:
    """Serve a hub with one repository at one commit; yields its address."""
    contents = {path.name: path.read_bytes() for path in files.iterdir() if path.is_file()}

    class Hub(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.answer(body=False)

        def do_GET(self) -> None:
            self.answer(body=True)

        def answer(self, body: bool) -> None:
            path = self.path.partition("?")[0]
            content, etag = b"", ""
            if path == f"/api/models/{REPOSITORY}/revision/{COMMIT}":
                siblings = [{"rfilename": name, "size": len(data)} for name, data in contents.items()]
                content = json.dumps({"id": REPOSITORY, "sha": COMMIT, "siblings": siblings}).encode()
            elif path == f"/api/models/{REPOSITORY}/tree/{COMMIT}":
                entries = [{"type": "file", "path": n, "size": len(d), "oid": "0" * 40} for n, d in contents.items()]
                content = json.dumps(entries).encode()
            elif path.startswith(f"/{REPOSITORY}/resolve/{COMMIT}/") and path.rpartition("/")[2] in contents:
                content = contents[path.rpartition("/")[2]]
                etag = hashlib.sha256(content).hexdigest()
            self.send_response(200 if content else 404)
            self.send_header("Content-Length", str(len(content)))
            if etag:
                self.send_header("ETag", f'"{etag}"')
                self.send_header("X-Repo-Commit", COMMIT)
            self.end_headers()
            if body:
                self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


def test_submit_needs_the_files_that_fetch_downloads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, body in {"sbatch": "echo 77", "squeue": "", "scontrol": ""}.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{body}\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))  # for the processes that check and fetch
    location = ["model.source=hub", f"model.location={REPOSITORY}", f"model.revision={COMMIT}"]
    plan = tiny_plan(tmp_path, "seed=0,1", *location)

    assert main(["submit", str(plan.folder), "slurm=cpu"]) == 3
    refused = capsys.readouterr().err
    assert "model micro (hub somebody/micro at 0123" in refused
    assert refused.endswith(f"Where there is a network, run: sdsbench fetch {plan.folder}\n")
    assert not (plan.folder / "submissions").exists()

    with hub(folder_of(compose_run(["model=micro"]).model)[0]) as address:
        fetched = subprocess.run(
            [sys.executable, "-m", "sdsbench", "fetch", str(plan.folder)],
            env={**os.environ, "HF_ENDPOINT": address, "HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_XET": "1"},
            capture_output=True,
            text=True,
        )
    assert fetched.returncode == 0, fetched.stderr
    assert " GB in all" in fetched.stdout and fetched.stdout.count("at hand: model micro") == 1
    assert main(["submit", str(plan.folder), "slurm=cpu"]) == 0


def test_check_without_a_network_gets_every_data_key_quoted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The check is a process of its own, whose command line Hydra parses."""
    rows = "".join(json.dumps({"prompt": f"{i} + 1 =", "response": str(i + 1)}) + "\n" for i in range(8))
    moved = tmp_path / "Größe (1), a=b \\ c"
    moved.mkdir()
    for file in (tmp_path / "train.jsonl", moved / "train.jsonl", moved / "test.jsonl"):
        file.write_text(rows)
    location = ["model.source=hub", f"model.location={REPOSITORY}", f"model.revision={COMMIT}"]
    own = ["task=pairs", "data.source=local", f"data.train={tmp_path / 'train.jsonl'}"]
    plan = tiny_plan(tmp_path, "seed=0", *location, *own)
    commands: list[list[str]] = []

    def run(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        commands.append(command)
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(fetch.subprocess, "run", run)
    given = {f"data.{split}": str(moved / f"{split}.jsonl") for split in ("train", "test")}
    fetch.require_downloaded(plan, {"threads": 2, "data.root": str(moved), **given})
    (command,) = commands
    assert command[3:5] == ["fetch", str(plan.folder)]
    assert placing.parse(command[5:]) == {"data.root": str(moved), **given}


def test_size_of_a_repository_is_counted_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two tasks and their splits lie in one repository of the hub, whose size is that of all its files."""
    words = ["model=minilm", "task=glue/rte,glue/mrpc", "data.source=hub", "method=lora", "seed=0"]
    plan = plans.write(tmp_path / "plan", *freeze(define(words), log=lambda _: None))[0]
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    asked: list[str] = []

    def size(data_set: DataSet) -> int:
        asked.append(data_set.name)
        return 3 * 10**9

    monkeypatch.setattr(fetch, "_data_bytes", size)
    lines: list[str] = []
    fetch.announce(plan, {}, lines.append)
    assert len(asked) == 1
    needs = (f"data glue/{task} {split} (hub)" for task in ("rte", "mrpc") for split in ("train", "validation"))
    assert lines[0] == f"{', '.join(needs)}: 3 GB on the hub"
    assert lines[1].startswith("3 GB in all, ") and len(lines) == 2
