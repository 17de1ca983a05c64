"""Start vLLM in its own environment and wait for its answers; the process ends with the evaluation that needs it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from sdsbench.core.errors import Unavailable
from sdsbench.evaluation.generation import Generator, Request
from sdsbench.evaluation.vllm_engine import generate

SECONDS_BETWEEN_LOOKS = 0.2
_VERSION = "from importlib.metadata import packages_distributions as p, version; print(version(p()['vllm'][0]))"


@dataclass(frozen=True)
class ServedModel:
    """What vLLM loads: a model folder in the hub's layout, and beside it a peft adapter of `rank`, if there is one."""

    model: Path
    dtype: str
    adapter: Path | None = None
    rank: int | None = None


def python_of(configured: str | None) -> str:
    """The Python that runs vLLM: eval.vllm_python, or else this process's own."""
    return configured or sys.executable


def version_of(python: str) -> str:
    """vLLM's version in the environment of `python`. Raises Unavailable without one."""
    try:
        found = subprocess.run(
            [python, "-P", "-c", _VERSION], capture_output=True, text=True, env=_environment(os.environ)
        )
    except OSError as error:
        raise Unavailable(
            f"eval.vllm_python={python} does not start ({error.strerror}): name an environment's bin/python"
        ) from None
    if found.returncode:
        raise Unavailable(
            f"eval.engine=vllm, but {python} has no vllm: install it into an environment of its own "
            "(`python -m venv vllm-env; vllm-env/bin/pip install vllm`), and set eval.vllm_python=vllm-env/bin/python"
        )
    return found.stdout.strip()


class VllmGenerator(Generator):
    """As Generator, except that vLLM generates the tokens, in a process that lives for one call.

    `served`: the model, whose tokenizer also is `tokenizer`; `folder`: for requests and answers, removed afterwards.
    """

    def __init__(self, like: Generator, served: ServedModel, python: str, folder: Path) -> None:
        super().__init__(like.model, like.tokenizer, like.batch_size, like.progress, like.begin_token, like.steps)
        self.served, self.python, self.folder = served, python, folder

    def continuations(self, prompts: Sequence[Sequence[int]], requests: Sequence[Request]) -> list[list[int]]:
        """The token ids that vLLM generates for each tokenized prompt, greedily. Raises Unavailable if it fails."""
        rows = [
            {"ids": list(ids), "max_new_tokens": request.max_new_tokens, "stop": list(request.stop)}
            for ids, request in zip(prompts, requests, strict=True)
        ]
        served = self.served
        content = {
            "model": str(served.model),
            "dtype": served.dtype,
            "adapter": None if served.adapter is None else str(served.adapter),
            "rank": served.rank,
            "rows": self.batch_size,
            "length": max(len(ids) + request.max_new_tokens for ids, request in zip(prompts, requests, strict=True)),
            "ends": sorted(self.ends),
            "prompts": rows,
        }
        with empty_folder(self.folder):
            (self.folder / "request.json").write_text(json.dumps(content))
            _run([self.python, "-P", str(generate.__file__), str(self.folder)], self.folder, self.progress)
            return json.loads((self.folder / "answers.json").read_text())


@contextmanager
def empty_folder(folder: Path) -> Iterator[None]:
    """An empty folder inside the block: a process that was killed may have left its files there."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        yield
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _run(command: Sequence[str], folder: Path, progress: Callable[[int], None]) -> None:
    """Run the command to its end, calling `progress(newly finished answers)`, which may raise to stop it."""
    log, done = folder / "log", 0
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=_environment(os.environ),
            start_new_session=True,
        )  # fmt: skip
        try:
            while process.poll() is None:
                time.sleep(SECONDS_BETWEEN_LOOKS)
                finished = max(done, _number_in(folder / "finished"))
                progress(finished - done)
                done = finished
        finally:
            with suppress(ProcessLookupError):  # vLLM starts processes of its own: the whole group ends
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    if process.returncode or not (folder / "answers.json").exists():
        raise Unavailable(f"eval.engine=vllm: vLLM ended with {process.returncode}: {_last_error(log)}")


def _number_in(path: Path) -> int:
    """The number in a file that another process is writing; 0 if it is not there or empty at this moment."""
    try:
        return int(path.read_text() or 0)
    except OSError:
        return 0


def _last_error(log: Path) -> str:
    """The last line of a log that names an error, or its last line."""
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
    named = [line for line in lines if "Error" in line]
    return (named or lines or ["it printed nothing"])[-1][-500:]


def _environment(current: Mapping[str, str]) -> dict[str, str]:
    """The variables of the process: without this environment's Python paths, offline, and sending no usage reports."""
    kept = {name: value for name, value in current.items() if name not in ("PYTHONPATH", "PYTHONHOME")}
    return kept | {"HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1"}
