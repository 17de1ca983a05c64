"""Weights & Biases shows a complete copy of a run, which can be written again and never delays or fails the run."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from sdsbench.__main__ import main
from sdsbench.core import step_log
from sdsbench.core.record import Record
from sdsbench.core.run_folder import read_record
from sdsbench.results.importers import wandb as importer
from sdsbench.runs.configuration.compose import compose_run
from sdsbench.runs.execute import execute
from sdsbench.runs.run_context import RunContext
from sdsbench.runs.tracking import view, wandb_view
from sdsbench.runs.tracking.tracker_config import TrackerConfig
from tests.conftest import ROOT
from tests.runs.wandb_server import WandbServer
from tests.tools import QUIET

FAST = [
    "model=micro", "data.source=embedded", "data.train_limit=32", "train.max_steps=3", "eval.limit=2", "threads=1",
    "eval.untrained=true", "eval.untrained_limit=1", "task.max_new_tokens=4", "method=lora", "tracker=wandb",
    "train.batch_size=2",
]  # fmt: skip


@pytest.fixture(autouse=True)
def without_wandb_key(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("WANDB_API_KEY", "WANDB_MODE", "WANDB_PROJECT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "no-netrc"))
    monkeypatch.setenv("HOME", str(tmp_path))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run that wrote an offline W&B copy during training."""
    pytest.importorskip("wandb")
    root = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WANDB_MODE", "offline")
        patch.setenv("WANDB_PROJECT", "mine")
        folder = root / execute(compose_run([*FAST, f"output_root={root}"]), QUIET).run_id
        view.wait_for_views(120)
    return folder


def test_importer_reads_all_results_from_the_offline_copy(run: Path) -> None:
    (copy,) = importer.run_folders(run / "wandb")
    found, record = importer.read(copy), read_record(run / "record.json")
    assert (found.model, found.method, found.task, found.seed) == ("micro", "lora", "gsm8k", 0)
    assert (found.rank, found.lr, found.status) == (record.rank, record.lr, "done")
    assert found.scores == {f"{s.stage}/{s.evaluation}/{s.scorer}": s.value for s in record.scores}
    assert found.train_seconds == record.seconds.train
    assert record.memory and record.parameters
    assert found.memory_bytes == record.memory.peak_bytes and found.trainable == record.parameters.trainable


def _messages(folder: Path) -> list[object]:
    """The protocol messages of a run's offline copy."""
    from wandb.proto import wandb_internal_pb2

    from sdsbench.results.importers.wandb_log import _records

    (log,) = folder.glob("wandb/offline-run-*/*.wandb")
    found = []
    for data in _records(log):
        message = wandb_internal_pb2.Record()
        message.ParseFromString(data)
        found.append(message)
    return found


def test_offline_copy_has_name_group_tags_configuration_steps_and_adapter(run: Path) -> None:
    messages = _messages(run)
    (shown,) = [m.run for m in messages if m.WhichOneof("record_type") == "run"]
    assert (shown.run_id, shown.project) == (run.name, "mine")
    assert shown.display_name == "micro gsm8k lora r8 seed 0" and shown.run_group == "micro gsm8k lora r8 lr 0.002"
    assert set(shown.tags) == {"micro", "lora", "gsm8k", "quick", "embedded"}
    config = {item.key: json.loads(item.value_json) for item in shown.config.update}
    whole = read_record(run / "record.json").config
    assert {key: config[key] for key in whole} == whole
    history = [
        {item.key or item.nested_key[0]: json.loads(item.value_json) for item in m.history.item}
        for m in messages
        if m.WhichOneof("record_type") == "history"
    ]
    losses = [line["loss"] for line in step_log.read(run / "metrics.jsonl") if line["kind"] == "train"]
    assert [row["train/loss"] for row in history if "train/loss" in row] == losses
    summary, _ = importer.wandb_log.read(next(run.glob("wandb/offline-run-*/*.wandb")))
    assert summary["adapter"] == f"{run.name}/adapter" and summary["score"] == summary["trained/gsm8k/flexible"]


def names_this_machine(text: str) -> bool:
    """Whether the host name is a whole word of the text; a short host name may be part of a random id."""
    return bool(re.search(rf"(?<![\w-]){re.escape(socket.gethostname())}(?![\w-])", text))


def test_offline_copy_names_no_machine_user_or_path(run: Path) -> None:
    import getpass

    (log,) = run.glob("wandb/offline-run-*/*.wandb")
    content = log.read_bytes()
    for private in (str(run.parent), str(Path.cwd()), f'"{getpass.getuser()}"'):
        assert private.encode() not in content, private
    text = "\n".join(map(str, _messages(run)))
    assert run.name in text and not names_this_machine(text)


def test_replay_replaces_the_earlier_offline_copy(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["replay", run.name[:6], "--runs", str(run.parent), "--project", "other"]) == 0
    assert f"{run.name}: 3 steps" in capsys.readouterr().out
    assert [m.run.project for m in _messages(run) if m.WhichOneof("record_type") == "run"] == ["other"]  # type: ignore[attr-defined]


def test_finished_run_is_not_sent_again_and_says_how_to_send_it(tmp_path: Path) -> None:
    words = [word for word in FAST if word != "tracker=wandb"] + [f"output_root={tmp_path}"]
    lines: list[str] = []
    record = execute(compose_run(words), RunContext(log=lines.append))
    execute(compose_run([*words, "tracker=wandb"]), RunContext(log=lines.append))
    (line,) = [line for line in lines if "replay" in line]
    assert line == f"nothing is sent to wandb; `sdsbench replay {record.run_id}` sends it"


@pytest.mark.parametrize("names", [["aa11"], ["aa11", "bb22"]], ids=len)
def test_end_of_a_command_says_how_to_upload_offline_copies(
    names: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Process:
        """A tracker process that has written an offline copy and ended."""

        def __init__(self, command: list[str], **_: object) -> None:
            folder = Path(command[3])
            (folder / "wandb" / f"offline-run-20260101_000000-{folder.name}").mkdir(parents=True)

        def wait(self, _: float) -> int:
            return 0

        def poll(self) -> int:
            return 0

    pytest.importorskip("wandb")
    monkeypatch.setattr(view, "_VIEWS", {})
    monkeypatch.setattr(view, "_STARTED", {})
    monkeypatch.setattr(subprocess, "Popen", Process)
    for name in names:
        (tmp_path / name).mkdir()
        view.start(TrackerConfig(name="wandb"), tmp_path / name)
    view.wait_for_views()
    one = tmp_path / "aa11" / "wandb" / "offline-run-20260101_000000-aa11"
    place = str(one) if len(names) == 1 else f"{tmp_path}/*/wandb/offline-run-*"
    assert capsys.readouterr().err == f"W&B was offline; to upload: wandb sync {place}\n"
    view.wait_for_views()
    assert capsys.readouterr().err == "", "each copy is named once"


def test_tracker_is_not_part_of_the_run_id() -> None:
    from sdsbench.runs.configuration.identity import run_id

    words = ["model=micro", "data.source=embedded"]
    assert run_id(compose_run(words)) == run_id(compose_run([*words, "tracker=wandb", "tracker.mode=online"]))


@pytest.mark.parametrize(
    ("mode", "variable", "key", "found"),
    [
        ("auto", None, False, "offline"),
        ("auto", None, True, "online"),
        ("auto", "offline", True, "offline"),
        ("auto", "disabled", True, "disabled"),
        ("online", "offline", False, "online"),
    ],
)
def test_wandb_mode_follows_configuration_environment_and_key(
    mode: str, variable: str | None, key: bool, found: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    wandb = pytest.importorskip("wandb")
    monkeypatch.setattr(wandb, "login", lambda prompt, verify: key and not verify)
    if variable:
        monkeypatch.setenv("WANDB_MODE", variable)
    assert wandb_view.mode_of(TrackerConfig(name="wandb", mode=mode)) == found  # type: ignore[arg-type]


def _view(folder: Path, url: str, key: str = "a" * 40, patience: float = 60.0) -> str:
    """Send a finished run to a server from another process, as a run does; returns the standard error.

    `patience`: seconds to wait for the server; small only where the server hangs.
    """
    code = f"from sdsbench.runs.tracking import view, wandb_view; wandb_view.PATIENCE = {patience}; view.main()"
    config = TrackerConfig(name="wandb", mode="auto", project="mine").model_dump_json()
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "WANDB_BASE_URL": url, "WANDB_API_KEY": key}
    environment |= {"WANDB_HTTP_TIMEOUT": "1", "WANDB_ERROR_REPORTING": "false"}
    command = [sys.executable, "-c", code, str(folder), config]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0 and "Traceback" not in done.stderr, done.stderr
    return done.stderr


def _without_empty(tree: dict[str, object]) -> dict[str, object]:
    """A configuration without empty sections, as W&B's client sends it."""
    found = {key: _without_empty(value) if isinstance(value, dict) else value for key, value in tree.items()}
    return {key: value for key, value in found.items() if value != {}}


@pytest.fixture
def finished(run: Path, tmp_path: Path) -> Path:
    """A copy of the run without its W&B copy."""
    return shutil.copytree(run, tmp_path / run.name, ignore=shutil.ignore_patterns("wandb"))


def test_server_receives_the_complete_run_and_can_continue_it(finished: Path) -> None:
    record = read_record(finished / "record.json")
    with WandbServer("answers").running() as server:
        for _ in range(2):  # the second time, the server has the run already and continues it
            _view(finished, server.url)
            received = server.run
            assert (received["name"], received["project"], received["jobType"]) == (record.run_id, "mine", "quick")
            assert received["displayName"] == "micro gsm8k lora r8 seed 0"
            assert received["groupName"] == "micro gsm8k lora r8 lr 0.002"
            assert set(received["tags"]) == {"micro", "lora", "gsm8k", "quick", "embedded"}
            config = server.config()
            assert {key: config[key] for key in record.config} == _without_empty(record.config)
            assert config["run_id"] == record.run_id
            losses = [line["loss"] for line in step_log.read(finished / "metrics.jsonl") if line["kind"] == "train"]
            assert [row["train/loss"] for row in server.history() if "train/loss" in row] == losses
            summary = server.summary()
            for score in record.scores:
                assert summary[f"{score.stage}/{score.evaluation}/{score.scorer}"] == score.value
            assert summary["score"] == summary["trained/gsm8k/flexible"] and summary["status"] == "done"
            assert summary["cost/train_seconds"] == record.seconds.train
            assert summary["adapter"] == f"{finished.name}/adapter" and server.exit_code == 0
    everything = "\n".join(server.bodies)
    for private in (str(finished.parent), str(Path.cwd()), sys.executable, "requirements.txt"):
        assert private not in everything, private
    assert not names_this_machine(everything)


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("denies", "401"),
        ("hangs", "context deadline exceeded"),
        ("refused", "connection refused"),
        ("a wrong key", "API key must have"),
        ("hangs later", "did not take all of"),
    ],
)
def test_server_fault_leaves_a_complete_local_copy(fault: str, message: str, finished: Path) -> None:
    record = read_record(finished / "record.json")
    if fault in ("refused", "a wrong key"):
        text = _view(finished, "http://127.0.0.1:9", "short" if fault == "a wrong key" else "a" * 40, patience=2)
    else:
        with WandbServer(fault).running() as server:  # type: ignore[arg-type]
            # a server that hangs later must have answered the start within the patience
            text = _view(finished, server.url, patience=10 if fault == "hangs later" else 2)
    assert message in text and ("offline instead" in text) == (fault != "hangs later"), text
    (log,) = finished.glob("wandb/run-*/*.wandb" if fault == "hangs later" else "wandb/offline-run-*/*.wandb")
    found = importer.read(log.parent)
    assert found.scores == {f"{s.stage}/{s.evaluation}/{s.scorer}": s.value for s in record.scores}
    assert found.status == "done" and found.train_seconds == record.seconds.train


def test_hanging_view_does_not_delay_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The run starts the view's process and does not wait for it; the command's final wait is bounded."""
    pytest.importorskip("wandb")
    real, started = subprocess.Popen, []

    def popen(command: list[str], **more: object) -> object:
        if "sdsbench.runs.tracking.view" in command:
            started.append(real([sys.executable, "-c", "import time; time.sleep(600)"]))
            return started[-1]
        return real(command, **more)  # type: ignore[call-overload]

    monkeypatch.setattr(subprocess, "Popen", popen)
    record: Record = execute(compose_run([*FAST, f"output_root={tmp_path}"]), QUIET)
    assert record.status == "done" and len(started) == 1
    view.wait_for_views(0.1)
    assert started[0].poll() is None
    started[0].kill()
    started[0].wait()


def test_missing_wandb_package_is_refused_before_anything_is_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    real = view.importlib.util.find_spec
    monkeypatch.setattr(view.importlib.util, "find_spec", lambda name: None if name == "wandb" else real(name))
    assert main([*FAST, f"output_root={tmp_path}"]) == 3
    text = capsys.readouterr()
    assert "pip install 'sdsbench[wandb]'" in text.err and "compute" not in text.out
