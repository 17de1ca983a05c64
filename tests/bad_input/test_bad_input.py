"""Bad inputs of every kind: one clear message, the right exit code, nothing damaged."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from sdsbench.__main__ import main
from sdsbench.core.processor import Load
from sdsbench.core.record import Attempt
from sdsbench.core.run_folder import find_record, read_record, write_record
from sdsbench.runs.keeper import RecordKeeper
from sdsbench.sweeps import plan as plans
from sdsbench.sweeps.plan import Plan
from sdsbench.training import checkpoint
from tests.sweeps.tools import TINY, put_record, tiny_plan

BASE = ["model=micro", "method=lora"]


def refused(capsys: pytest.CaptureFixture[str], words: list[str], code: int, *said: str) -> str:
    """The command ends with `code` and one message that says all of `said`."""
    capsys.readouterr()
    assert main(words) == code
    text = capsys.readouterr().err
    assert text.startswith("sdsbench: ")
    assert text.count("sdsbench: ") == 1
    assert "Traceback" not in text
    assert len(text) < 4000, "a message, not a dump"
    for part in said:
        assert part in text
    return text


# ---- configurations: key, what the message names

CONFIGURATIONS = [
    ("method=lroa", "Did you mean 'lora'?"),
    ("model=", "model"),
    ("method=lora,", "command line"),
    ("model=micro,minilm", "several runs"),
    ("method.rnak=8", "Did you mean 'method.rank'?"),
    ("rank=8", "Did you mean 'method.rank'?"),
    ("method.rank=eight", "a whole number"),
    ("method.rank=0", "a whole number from 1"),
    ("method.rank=-1", "a whole number from 1"),
    ("method.rank=8.5", "a whole number"),
    ("method.rank=true", "a whole number"),
    ("method.rank=null", "a whole number"),
    ("method.rank=99999999999999999999999", "method.rank"),
    ("method.rank=9999999999", "At most 4,294,967,295."),
    ("task.beams=1000000000000000000000", "At most 4,294,967,295."),
    ("threads=1000000000000", "a whole number from 0 to 4096"),
    ("method.alpha=1e300", "At most 1e+30."),
    ("method.alpha=nan", "a number above 0"),
    ("method.alpha=-inf", "a number above 0"),
    ("method.dropout=1.5", "0 to below 1"),
    ("method.targets=[]", "method.targets"),
    ("method.targets=[qproj]", "Did you mean 'q_proj'?"),
    ("method.targets=q_proj", "a list"),
    ("train.lr=0", "a number above 0"),
    ("train.lr=nan", "a number above 0"),
    ("train.lr=inf", "train.lr"),
    ("train.lr=1e400", "train.lr"),
    ("train.lr=", "train.lr"),
    ("train.epochs=inf", "train.epochs"),
    ("train.max_steps=0", "a whole number from 1"),
    ("train.batch_size=0", "a whole number from 1"),
    ("train.betas=[0.9]", "train.betas"),
    ("train.betas=[0.9,1.5]", "train.betas"),
    ("train.schedule=cosin", "cosine"),
    ("train.warmup_ratio=2", "train.warmup_ratio"),
    ("train.weight_decay=-1", "train.weight_decay"),
    ("eval.limit=0", "eval.limit"),
    ("eval.split=tset", "eval.split"),
    ("data.source=locla", "hub, local, embedded"),
    ("data.source=local", "data.root"),
    ("data.root='a\nb'", "without control characters"),
    ("output_root='a\x1bb'", "without control characters"),
    ("data.train_limit=-5", "data.train_limit"),
    ("seed=-1", "a whole number from 0"),
    ("seed=1.5", "a whole number"),
    ("threads=-2", "threads"),
    ("device=tpu", "cpu, cuda"),
    ("dtype=float16", "float32, bfloat16"),
    ("task=gsm9k", "Did you mean 'gsm8k'?"),
    ("task=glue/rte", "encoder"),
    ("task.train_set=gsm8kk", "Did you mean 'gsm8k'?"),
    ("+new.key=1", "Keys cannot be added"),
    ("~method.rank", "Keys cannot be added or deleted"),
    ("method.rank", "key=value"),
    ("=8", "a key of conf/"),
    ("method.rank=${nowhere.to.be.found}", "${"),
    ("ключ=значение", "ключ"),
    ("method=лора", "лора"),
    ("method=\u202elora", "method"),
    ("train.lr=" + "9" * 5000, "train.lr"),
    ("train=fast", "one key below it"),
    ("model=../../etc/passwd", "model"),
]


@pytest.mark.parametrize(("word", "said"), CONFIGURATIONS, ids=[word[:40] for word, _ in CONFIGURATIONS])
def test_configuration(word: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    refused(capsys, [*BASE, f"output_root={tmp_path / 'runs'}", word], 2, said)
    assert not (tmp_path / "runs").exists()


# ---- sweeps and plans

SWEEPS = [
    ("blocks: []", "one block or more"),
    ("blocks: [{axis: {seed: [0]}}]", "Did you mean 'axes'?"),
    ("blocks: [{axes: {seed: []}}]", "value"),
    ("blocks: [{axes: {seed: 3}}]", "axes"),
    ("blocks: [{axes: {seed: [0, 0]}}]", "each value once"),
    ("blocks: [{axes: {threads: [1, 2]}}]", "threads"),
    ("blocks: [{fixed: ['seed=0,1']}]", "belong under axes"),
    ("blocks: [{fixed: [3]}]", "a list of overrides"),
    ("blocks: [{axes: {method: [lora, lroa]}}]", "Did you mean 'lora'?"),
    ("blocks: 7", "blocks"),
    ("", "keys name"),
    ("[1, 2]", "keys name"),
    ("blocks: [", "a YAML file"),
    ("\x00", "a YAML file"),
    ("description: 2026-13-01", "a YAML file"),
    ("blocks: [{axes: {seed: [" + "9" * 5000 + "]}}]", "sweep=s"),
    ("blocks: [{axes: {seed: [2026-99-99]}}]", "a YAML file"),
    ("block: [{axes: {seed: [0]}}]", "blocks"),
    ("blocks: [{axes: {seed: [0]}}]\ntune: {key: train.lr, grid: [1e-3], seeds: [9]}", "two different numbers"),
    ("blocks: [{axes: {seed: [0]}}]\ntune: {key: train.lr, grid: [a, b], seeds: [9]}", "tune.grid"),
    ("blocks: [{axes: {seed: [0]}}]\ntune: {key: train.lr, grid: [1e-3, 2e-3], seeds: [0]}", "fresh"),
    ("blocks: [{axes: {seed: [0]}}]\ntune: {key: train.lr, grid: [1e-3, .nan], seeds: [9]}", "tune.grid"),
    ("blocks: [{axes: {seed: [0], train.lr: [1]}}]\ntune: {key: train.lr, grid: [1, 2], seeds: [9]}", "tune chooses"),
    ("blocks: [{axes: {method: [lora]}}]\ntune: {key: train.lr, grid: [1, 2], seeds: [9]}", "evaluation_seeds_axis"),
    ("blocks: [{axes: {seed: [0]}}]\ntune: {kye: train.lr, grid: [1, 2], seeds: [9]}", "tune"),
]


@pytest.mark.parametrize(("text", "said"), SWEEPS, ids=[text[:60] for text, _ in SWEEPS])
def test_sweep_file(text: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "sweep").mkdir()
    (tmp_path / "sweep" / "s.yaml").write_text(text)
    words = ["plan", "sweep=s", "model=micro", "--config-dir", str(tmp_path), "--folder", str(tmp_path / "plan")]
    refused(capsys, words, 2, said)
    assert not (tmp_path / "plan").exists()


COMMANDS = [
    (["plan", "sweep=nowhere"], 2, "sweep"),
    (["plan", "threads=1,2"], 2, "one value"),
    (["sweep", "nowhere"], 3, "no such folder"),
    (["status", ""], 3, "no such folder"),
    (["submit", "\u2603"], 3, "no such folder"),
    (["swep"], 2, "Did you mean 'sweep'?"),
]


@pytest.mark.parametrize(("words", "code", "said"), COMMANDS, ids=lambda value: str(value)[:40])
def test_command(
    words: list[str],
    code: int,
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    refused(capsys, words, code, said)
    assert list(tmp_path.iterdir()) == []


def _flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def _truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _change(key: str, value: object) -> Callable[[Path], None]:
    def change(path: Path) -> None:
        path.write_text(json.dumps(json.loads(path.read_text()) | {key: value}))

    change.__name__ = f"{key}={str(value)[:20]}"
    return change


def _write(content: bytes) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        path.write_bytes(content)

    write.__name__ = f"content={content[:12]!r}"
    return write


DAMAGE = [
    _flip, _truncate, _write(b""), _write(b"null"), _write(b"[]"), _write(b"{}"), _write(b"\xff\xfe\x00"),
    _write(b"\x1f\x8b compressed"), _write('{"run_id": "\u2603"}'.encode()), _write(b"[" * 100_000),
    _change("schema_version", 99), _change("checksum", "0" * 64), _change("extra", 1),
]  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGE, ids=lambda damage: damage.__name__)
def test_manifest(damage: Callable[[Path], None], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plan = tiny_plan(tmp_path, "seed=0,1")
    damage(plan.folder / "manifest.json")
    before = _contents(plan.folder)
    refused(capsys, ["status", str(plan.folder)], 3, "manifest.json")
    refused(capsys, ["sweep", str(plan.folder)], 3, "manifest.json")
    assert _contents(plan.folder) == before
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("damage", [_flip, _truncate, _write(b""), Path.unlink], ids=lambda damage: damage.__name__)
def test_frozen_configuration(damage: Callable[[Path], None], tmp_path: Path) -> None:
    """The worker names the run and goes on with the others."""
    plan = tiny_plan(tmp_path, "seed=0,1")
    names = list(plan.manifest.runs)
    damage(plan.folder / "runs" / f"{names[0]}.json")
    with pytest.raises(Exception, match=names[0]) as caught:
        plan.configuration(names[0], {})
    assert getattr(caught.value, "exit_code", None) == 3
    assert plan.configuration(names[1], {}).seed == 1


RECORD_DAMAGE = [
    *DAMAGE, _change("lr", float("nan")), _change("lr", "fast"), _change("seed", None), _change("status", "finished"),
    _change("scores", [{"value": float("inf")}]), _change("method", "x" * 1_000_000),
]  # fmt: skip


@pytest.mark.parametrize("damage", RECORD_DAMAGE, ids=lambda damage: damage.__name__)
def test_record(damage: Callable[[Path], None], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Named by status and not counted; set aside, not lost, by the next run; nothing else changes."""
    plan = tiny_plan(tmp_path, "seed=0,1")
    names = list(plan.manifest.runs)
    for name in names:
        put_record(plan, tmp_path / "runs", name)
    path = tmp_path / "runs" / names[0] / "record.json"
    damage(path)
    before = path.read_bytes()
    assert main(["status", str(plan.folder)]) == 0
    text = capsys.readouterr().out
    assert "1 done, 1 damaged" in text
    assert f"damaged: {names[0]}" in text
    assert path.read_bytes() == before, "status changes nothing"
    said: list[str] = []
    assert find_record(path.parent, said.append) is None
    (aside,) = path.parent.glob("record.damaged-*.json")
    assert aside.read_bytes() == before
    assert aside.name in said[0]
    assert len(said[0]) < 2000


# ---- checkpoints

ORIGIN = {"code: core": "a", "weights": "b", "data: gsm8k train": "c"}


def _checkpoint(folder: Path, step: int) -> Path:
    import torch
    from safetensors.torch import save_file

    path = folder / f"checkpoint-{step}"
    path.mkdir(parents=True)
    save_file({"optimizer.x": torch.arange(4.0)}, path / "state.safetensors")
    digest = hashlib.sha256((path / "state.safetensors").read_bytes()).hexdigest()
    counters = {"tokens": 1, "targets": 1, "positions": 1, "seconds": 0.5}
    facts = {"origin": ORIGIN, "sha256": digest, "step": step, "counters": counters, "method": {}}
    facts |= {"group_size": 1, "micro_limit": None}
    (path / "state.json").write_text(json.dumps({**facts, "checksum": checkpoint._checksum(facts)}))
    return path


CHECKPOINTS = [
    ("state.safetensors", _flip), ("state.safetensors", _truncate), ("state.safetensors", _write(b"")),
    ("state.safetensors", Path.unlink), ("state.json", _truncate), ("state.json", _write(b"")),
    ("state.json", _write(b"null")),
    ("state.json", _write(b"[]")), ("state.json", _write(b"{}")), ("state.json", _write(b"\xff")),
    ("state.json", Path.unlink),
    ("state.json", _change("step", 10**9)), ("state.json", _change("step", "4")),
    ("state.json", _change("group_size", 7)),
    ("state.json", _change("counters", {"tokens": 5})), ("state.json", _change("method", {"refreshes": [1]})),
    ("state.json", _change("origin", {"weights": "other"})), ("state.json", _change("extra", 1)),
    ("state.json", _change("sha256", "0" * 64)), ("state.json", _change("sha256", None)),
    ("state.json", _write(b"[" * 100_000)),
]  # fmt: skip


@pytest.mark.parametrize(("file", "damage"), CHECKPOINTS, ids=lambda value: getattr(value, "__name__", str(value)))
def test_checkpoint(file: str, damage: Callable[[Path], None], tmp_path: Path) -> None:
    """Found, named, set aside; the older whole one is used."""
    older, newer = _checkpoint(tmp_path, 2), _checkpoint(tmp_path, 4)
    damage(newer / file)
    found, remarks = checkpoint.newest(tmp_path)
    assert found is not None and found.path == older
    assert len(remarks) == 1
    assert "checkpoint-4" in remarks[0]
    assert (tmp_path / "damaged-checkpoint-4").is_dir()


@pytest.mark.parametrize("name", ["checkpoint-", "checkpoint-x", "checkpoint-4.old", "checkpoint-\u2603"])
def test_strange_checkpoint_names(name: str, tmp_path: Path) -> None:
    whole = _checkpoint(tmp_path, 2)
    (tmp_path / name).mkdir()
    found, _ = checkpoint.newest(tmp_path)
    assert found is not None and found.path == whole


# ---- data files


def _parquet(path: Path, rows: list[dict[str, object]]) -> None:
    import pyarrow
    import pyarrow.parquet

    path.parent.mkdir(parents=True, exist_ok=True)
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)


ROW = {"question": "1 + 1?", "answer": "It is 2. #### 2"}
DATA: list[tuple[str, Callable[[Path], None], str]] = [
    ("no folder", lambda root: None, "no file"),
    ("no test file", lambda root: _parquet(root / "gsm8k" / "train.parquet", [ROW] * 300), "no file"),
    ("empty file", lambda root: _files(root, b""), "cannot be read as parquet"),
    ("text", lambda root: _files(root, b"question,answer\n1,2\n"), "cannot be read as parquet"),
    ("no rows", lambda root: _tables(root, []), "parquet"),
    ("other columns", lambda root: _tables(root, [{"q": "x", "a": "y"}] * 4), "missing column"),
    ("truncated", lambda root: (_tables(root, [ROW] * 400), _truncate(root / "gsm8k" / "train.parquet"))[0], "parquet"),
]


def _files(root: Path, content: bytes) -> None:
    for split in ("train", "test"):
        (root / "gsm8k").mkdir(parents=True, exist_ok=True)
        (root / "gsm8k" / f"{split}.parquet").write_bytes(content)


def _tables(root: Path, rows: list[dict[str, str]]) -> None:
    import pyarrow
    import pyarrow.parquet

    for split in ("train", "test"):
        (root / "gsm8k").mkdir(parents=True, exist_ok=True)
        schema = None if rows else pyarrow.schema([("question", pyarrow.string()), ("answer", pyarrow.string())])
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows, schema), root / "gsm8k" / f"{split}.parquet")


@pytest.mark.parametrize(("make", "said"), [case[1:] for case in DATA], ids=[case[0] for case in DATA])
def test_data_file(make: Callable[[Path], None], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = tmp_path / "data"
    root.mkdir()
    make(root)
    before = _contents(root)
    words = [word for word in TINY if not word.startswith("data.source")]
    place = ["method=lora", "data.source=local", f"data.root={root}", f"output_root={tmp_path / 'runs'}"]
    refused(capsys, [*words, *place], 3, "gsm8k", said)
    assert _contents(root) == before
    (path,) = (tmp_path / "runs").glob("*/record.json")
    record = find_record(path.parent, print)
    assert record is not None
    assert record.status == "failed"
    assert record.failure is not None
    assert said in record.failure.message


# ---- submissions and SLURM settings

SLURM = [
    ("slurm=gpus", "Did you mean 'gpu'?"),
    ("slurm.time=soon", "90 (minutes), 4:00, 100:00:00, 2-0"),
    ("slurm.tiem=01:00:00", "Did you mean 'slurm.time'?"),
    ("slurm.gpus=-1", "a whole number from 0"),
    ("slurm.memory=lots", "64G"),
    ("slurm.partition='a; rm -rf /'", "without spaces"),
    ("slurm.runs_per_task=0", "a whole number from 1"),
    ("slurm.extra=[shutdown]", "sbatch"),
    ("seed=3", "frozen"),
]


@pytest.mark.parametrize(("word", "said"), SLURM, ids=[word for word, _ in SLURM])
def test_slurm_setting(word: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plan = tiny_plan(tmp_path, "seed=0,1")
    refused(capsys, ["submit", str(plan.folder), word], 2, said)
    assert not (plan.folder / "submissions").exists()


@pytest.mark.parametrize(
    "text", ["cpus: [", "cpus: " + "9" * 5000, "- gpu", "cpus: 2026-99-99"], ids=lambda text: text[:12]
)
def test_slurm_file(text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plan = tiny_plan(tmp_path, "seed=0")
    (tmp_path / "slurm").mkdir()
    (tmp_path / "slurm" / "theirs.yaml").write_text(text)
    words = ["submit", str(plan.folder), "slurm=theirs", "--dry-run", "--config-dir", str(tmp_path)]
    refused(capsys, words, 2, "slurm")


PLACING = [
    ("output_root", 7), ("output_root", None), ("output_root", ["a"]), ("output_root", "a\nb"), ("threads", "x"),
    ("device", [1]), ("plugins", "os"), ("data.root", "x\x1by"),
]  # fmt: skip


@pytest.mark.parametrize(("key", "value"), PLACING, ids=str)
def test_received_values_that_place_runs(
    key: str, value: object, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The checksum fits; whoever wrote the plan may have written any value into it."""
    plan = tiny_plan(tmp_path, "seed=0")
    manifest = plan.manifest.model_copy(update={"placing": plan.manifest.placing | {key: value}})
    plans._write_manifest(plan.folder, manifest)
    before = _contents(tmp_path)
    for verb, *more in (["status"], ["sweep"], ["disk"], ["bundle", "-o", str(tmp_path / "x.zip")]):
        refused(capsys, [verb, str(plan.folder), *more], 3, f"{key}=", "accepted")
    assert _contents(tmp_path) == before


@pytest.mark.parametrize("content", ["", "{", "[]", '{"job": 1}', '{"job": 1, "tasks": 3}'])
def test_damaged_submission(content: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plan = tiny_plan(tmp_path, "seed=0")
    path = plan.folder / "submissions" / "001" / "submission.json"
    path.parent.mkdir(parents=True)
    path.write_text(content)
    refused(capsys, ["status", str(plan.folder)], 3, "submission.json")


def _contents(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_attempts_without_an_end_are_told_apart(tmp_path: Path) -> None:
    """A record whose process vanished says so once the next attempt looks."""
    plan: Plan = plans.read(tiny_plan(tmp_path, "seed=0").folder)
    (name,) = plan.manifest.runs
    record = put_record(plan, tmp_path / "runs", name, "running", None)
    record.attempts = [Attempt(started="2026-01-01T00:00:00+00:00", status="running")]
    write_record(tmp_path / "runs" / name, record)
    keeper = RecordKeeper(tmp_path / "runs" / name, plan.configuration(name, {}), name, print, "node_failure")
    assert [attempt.status for attempt in keeper.record.attempts] == ["node_failure"]


def test_an_attempt_says_what_other_work_held_of_the_cores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan: Plan = plans.read(tiny_plan(tmp_path, "seed=0").folder)
    (name,) = plan.manifest.runs
    folder = tmp_path / "runs" / name
    folder.mkdir(parents=True)
    moments = iter([Load(busy=100.0, own=3.0, clock=50.0), Load(busy=125.0, own=13.0, clock=60.0)])
    monkeypatch.setattr(Load, "now", lambda: next(moments))
    keeper = RecordKeeper(folder, plan.configuration(name, {}), name)
    with keeper.attempt():
        keeper.end()
    assert read_record(folder / "record.json").attempts[-1].others == 1.5
