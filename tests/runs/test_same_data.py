"""data.root is not part of a run's id, so a finished run is reused only if it read the rows that are there now."""

from __future__ import annotations

import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sdsbench.core.errors import Refused
from sdsbench.core.record import Record
from sdsbench.runs.configuration.compose import compose_run
from sdsbench.runs.execute import execute
from sdsbench.runs.run_context import RunContext


def write_gsm8k(root: Path, question: str, split: str = "", answer: str = "#### 1") -> Path:
    """Write GSM8K's splits below `root`, with another question in `split`."""
    for name in ("train", "test"):
        path = root / "gsm8k" / f"{name}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        text = question if name == split else name
        pq.write_table(pa.table({"question": [f"{text} {i}" for i in range(8)], "answer": [answer] * 8}), path)
    return root


def run_and_log(tmp_path: Path, root: Path, *words: str) -> tuple[Record, str]:
    logged: list[str] = []
    config = compose_run(
        [
            "model=micro", "method=lora", "task=gsm8k", "data.source=local", f"data.root={root}", "train.max_steps=1",
            "train.batch_size=2", "eval.limit=2", "eval.untrained=false", "task.max_new_tokens=2", "threads=1",
            f"output_root={tmp_path / 'runs'}", *words,
        ]
    )  # fmt: skip
    return execute(config, RunContext(log=logged.append)), "\n".join(logged)


@pytest.mark.parametrize("split", ["train", "test"])
def test_finished_run_on_other_rows_is_refused(tmp_path: Path, split: str) -> None:
    first, _ = run_and_log(tmp_path, write_gsm8k(tmp_path / "a", "same"))
    same, logged = run_and_log(tmp_path, write_gsm8k(tmp_path / "b", "same"))
    assert same == first and "found finished run" in logged, "a run on equal rows in another folder is reused"
    other = write_gsm8k(tmp_path / "c", "other", split)
    with pytest.raises(Refused, match=r"(?s)made with other data than are here now.*force=true.*output_root") as caught:
        run_and_log(tmp_path, other)
    assert first.provenance is not None and caught.value.exit_code == 2
    (before,) = [used.fingerprint for used in first.provenance.data if used.split == split]
    assert before[:12] in str(caught.value)
    forced, _ = run_and_log(tmp_path, other, "force=true")
    assert forced.provenance is not None
    (after,) = [used.fingerprint for used in forced.provenance.data if used.split == split]
    assert after[:12] in str(caught.value) and after != before


def test_finished_run_whose_data_is_missing_logs_that_rows_were_not_compared(tmp_path: Path) -> None:
    first, _ = run_and_log(tmp_path, write_gsm8k(tmp_path / "a", "same"))
    shutil.rmtree(tmp_path / "a")
    again, logged = run_and_log(tmp_path, tmp_path / "a")
    assert again == first and "could not be compared" in logged


@pytest.mark.parametrize("how", ["damaged", "unreadable"])
def test_finished_run_whose_data_cannot_be_read_logs_that_rows_were_not_compared(
    tmp_path: Path, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = write_gsm8k(tmp_path / "a", "same")
    first, _ = run_and_log(tmp_path, root)
    if how == "damaged":
        (root / "gsm8k/train.parquet").write_bytes(b"PAR1")
    else:  # patched, because the tests may run as root, who can read every file
        plain = Path.is_dir

        def is_dir(path: Path) -> bool:
            if path.is_relative_to(root):
                raise PermissionError(13, "Permission denied", str(path))
            return plain(path)

        monkeypatch.setattr(Path, "is_dir", is_dir)
    again, logged = run_and_log(tmp_path, root)
    assert again == first and "could not be compared" in logged
