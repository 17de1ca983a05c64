"""A folder with one small example of every input that the project reads, in which one file at a time is damaged.

    python -m tests.bad_input.mutation 20000 [SEED]     # `make mutations`

After each mutation the readers of the damaged file are called: tables, frames, data of verdicts and figures, status of
a plan, bundles, checkpoints, imported results, the run's folder and those of formats.py; every 100th time the report.
No reader may raise anything but this package's errors, hang, write outside its output folder, or lose undamaged files.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
import zstandard

from sdsbench.core import samples
from sdsbench.core.containment import require_plain
from sdsbench.core.errors import SdsbenchError
from sdsbench.core.hashing import sha256_of
from sdsbench.core.limits import RECORD
from sdsbench.core.run_folder import read_record
from sdsbench.core.yaml_text import read_yaml
from sdsbench.results.bundles.opened import opened
from sdsbench.results.bundles.write import write
from sdsbench.results.claims.claim import read as read_claims
from sdsbench.results.frames import load_samples, load_steps
from sdsbench.results.importers import external, peft, wandb
from sdsbench.results.report.build import build as build_report
from sdsbench.results.tables.by_name import built, texts
from sdsbench.results.tables.runs import load
from sdsbench.results.tables.titles import method_title
from sdsbench.results.tables.trace import trace_run
from sdsbench.studies.figures import data as figure_data
from sdsbench.sweeps import plan as plans
from sdsbench.sweeps.slurm import submissions
from sdsbench.sweeps.states import States
from sdsbench.training import checkpoint
from tests.bad_input import formats
from tests.bad_input.damage import write_checkpoint
from tests.results.tables.fixtures import make_record, make_samples, write_run
from tests.results.test_importers import RESULT
from tests.sweeps.tools import put_record, tiny_plan

HANG = 120  # seconds after which a reader counts as hanging; no reader needs a thousandth of it
REPORT_EVERY = 100


@dataclass(frozen=True)
class InputFolder:
    """A folder of input and the content that its files have before any damage."""

    folder: Path
    files: dict[str, bytes]  # relative path -> content

    @property
    def runs(self) -> Path:
        return self.folder / "runs"


METHODS = ("lora", "dora", "pissa")


def write_inputs(folder: Path) -> InputFolder:
    """Write runs (with answers and probes), a plan, imported results, a bundle, a checkpoint, claims and a sweep."""
    for number, method in enumerate(METHODS):
        train = {"lr": 1e-3, "epochs": 1.0, "batch_size": 8, "optimizer": "adamw"}
        record = make_record(method, 0, {"gsm8k": 0.5}, config={"train": train, "probe": {"every": 1}})
        lines = [{"kind": "train", "step": step, "loss": 1.0 / step, "lr": 1e-3} for step in range(1, 6)]
        run = write_run(folder / "runs", record, {"gsm8k": make_samples([True, False, number > 0, True])}, lines)
        samples.write(
            run / "probes" / "000001.jsonl.zst", [{"layer": "model.layers.0.q_proj", "gain": 0.5, "values": [1.0]}]
        )
        (run / "config.yaml").write_text(yaml.safe_dump(record.config))
    plan = tiny_plan(folder / "planned", "seed=0,1")
    for identity in plan.manifest.runs:
        put_record(plan, folder / "planned" / "runs", identity)
    write(folder / "bundle.zip", [folder / "planned" / "runs"], plan)
    write_checkpoint(folder / "checkpoints", 4)
    (folder / "peft").mkdir()
    (folder / "peft" / "a.json").write_text(json.dumps(RESULT))
    for name in ("a", "b"):
        one = external.ExternalRecord(
            tool="peft", name=name, model="m", method="LORA", task="t", scores={"x": 0.5}, origin="0"
        )
        external.write(folder / "external", one)
    wandb_run = folder / "wandb" / "run-1" / "files"
    wandb_run.mkdir(parents=True)
    (wandb_run / "wandb-summary.json").write_text(json.dumps({"accuracy": 0.5, "_runtime": 9}))
    (wandb_run / "config.yaml").write_text(yaml.safe_dump({"lr": {"value": 1e-3}, "model": {"value": "m"}}))
    claim = {"id": "c", "paper": "p", "sentence": "s", "test": "higher", "measure": "score", "ours": {"method": "dora"},
             "theirs": {"method": "lora"}, "same": ["model"]}  # fmt: skip
    (folder / "claims.yaml").write_text(yaml.safe_dump({"claims": [claim]}))
    (folder / "conf" / "sweep").mkdir(parents=True)
    (folder / "conf" / "sweep" / "mine.yaml").write_text("blocks: [{axes: {seed: [0, 1]}, fixed: [model=micro]}]\n")
    formats.write_inputs(folder)
    files = {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}
    return InputFolder(folder, files)


# ---- mutations of bytes, of values, and of the type of a file


def _truncate(content: bytes, rng: random.Random) -> bytes:
    return content[: rng.randrange(len(content) + 1)]


def _flip(content: bytes, rng: random.Random) -> bytes:
    result = bytearray(content)
    for _ in range(rng.choice((1, 1, 1, 8))):
        if result:
            result[rng.randrange(len(result))] ^= 1 << rng.randrange(8)
    return bytes(result)


def _enlarge(content: bytes, rng: random.Random) -> bytes:
    return content + rng.choice((b"\0", b"{}\n", b"1\n", b"[" * 5000, content, b" " * 10_000, b"9" * 6000))


ODD_VALUES: tuple[Any, ...] = (
    None, True, 0, -1, 1, 10**30, 10**400, 1e308, -1e308, float("nan"), float("inf"), 0.5, "", "x", "../../x",
    "/etc/passwd", "a\nb", "\x1b[31m", "$\\foo{$", "[/red]", "=1+1", "\u202e", "x" * 5000, [], [1], [[1]], {}, {"a": 1},
    {"": {"": None}}, ["x", None], "2026-01-01", "${oc.env:HOME}",
)  # fmt: skip
"""Values of every type that replace others: extremes, escapes, markup, formulas and deep nesting."""


def _paths_in(tree: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The path (keys and positions) of the tree and of everything in it."""
    yield at
    children = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for key, value in children:
        yield from _paths_in(value, (*at, key))


def retyped(tree: Any, rng: random.Random) -> Any:
    """The tree with one value replaced, removed or wrapped, or one key or item added."""
    at = rng.choice(list(_paths_in(tree)))
    if not at:
        return rng.choice(ODD_VALUES)
    parent = tree
    for key in at[:-1]:
        parent = parent[key]
    how = rng.randrange(6)
    if how < 3:
        parent[at[-1]] = rng.choice(ODD_VALUES)
    elif how == 3:
        del parent[at[-1]]
    elif how == 4:
        parent[at[-1]] = {"nested": [parent[at[-1]]]}
    elif isinstance(parent, dict):
        parent[rng.choice(("", "extra", "a\nb", "run_id", "x" * 300))] = rng.choice(ODD_VALUES)
    else:
        parent.append(rng.choice(ODD_VALUES))
    return tree


def _retype(name: str, content: bytes, rng: random.Random) -> bytes:
    """Change one value and, mostly, recompute the checksum, as somebody who knows the format would."""
    packed = name.endswith(".zst")
    text = zstandard.ZstdDecompressor().decompress(content) if packed else content
    if name.endswith((".jsonl", ".jsonl.zst")):
        lines = [json.loads(line) for line in text.splitlines()]
        position = rng.randrange(len(lines))
        lines[position] = retyped(lines[position], rng)
        result = "".join(json.dumps(line) + "\n" for line in lines).encode()
    elif name.endswith(".json"):
        tree = retyped(json.loads(text), rng)
        if isinstance(tree, dict) and "checksum" in tree and rng.random() < 0.9:
            with contextlib.suppress(ValueError, TypeError):
                facts = {key: value for key, value in tree.items() if key != "checksum"}
                checksum = checkpoint._checksum(facts) if "counters" in tree else sha256_of({**tree, "checksum": ""})
                tree["checksum"] = checksum
        result = json.dumps(tree).encode()
    elif name.endswith(".yaml"):
        tree = retyped(yaml.safe_load(text), rng)
        result = yaml.safe_dump(tree).encode(errors="replace")
    else:
        return _flip(content, rng)
    return zstandard.ZstdCompressor().compress(result) if packed else result


def mutate(inputs: InputFolder, rng: random.Random) -> tuple[str, str]:
    """Damage one file; returns (its relative path, the kind of damage)."""
    name = rng.choice(sorted(inputs.files))
    path, content = inputs.folder / name, inputs.files[name]
    how = rng.choice(("truncate", "flip", "retype", "retype", "retype", "enlarge", "link", "FIFO", "folder", "absent"))
    if how in ("link", "FIFO", "folder", "absent"):
        path.unlink()
        if how == "link":
            path.symlink_to(rng.choice(("/dev/zero", "/etc/hostname", str(path), "../..", "nowhere")))
        elif how == "FIFO":
            os.mkfifo(path)
        elif how == "folder":
            path.mkdir()
        return name, how
    changes: dict[str, Callable[[], bytes]] = {
        "truncate": lambda: _truncate(content, rng),
        "flip": lambda: _flip(content, rng),
        "enlarge": lambda: _enlarge(content, rng),
        "retype": lambda: _retype(name, content, rng),
    }
    path.write_bytes(changes[how]())
    return name, how


def restore(inputs: InputFolder, name: str) -> None:
    path = inputs.folder / name
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
    path.write_bytes(inputs.files[name])


# ---- the readers that are called after each mutation


def read_all(inputs: InputFolder, name: str, how: str, report: bool, output: Path) -> list[str]:
    """Call every reader of the damaged file `name`; returns the undamaged input that is missing from their results.

    Errors of this package are expected; any other exception is raised.
    """
    folder, touched, lost = inputs.folder, name.split("/"), []
    run = touched[1] if touched[0] == "runs" else ""
    if run or report:
        _read_runs(inputs, touched, how, report, output, lost)
    if touched[0] == "planned":
        with _package_errors_suppressed():
            plan = plans.read(folder / "planned" / "plan")
            States(plan, folder / "planned" / "runs").counts()
            submissions(plan)
            for identity in plan.manifest.runs:
                with _package_errors_suppressed():
                    plan.configuration(identity, {})
    readers: dict[str, Callable[[], object]] = {
        "bundle.zip": lambda: opened(folder / "bundle.zip"),
        "external": lambda: _read_external(folder, touched, lost),
        "claims.yaml": lambda: read_claims(folder / "claims.yaml"),
        "checkpoints": lambda: _read_newest_checkpoint(folder, output),
        "peft": lambda: _read_import("peft", folder / "peft" / "a.json"),
        "wandb": lambda: _read_import("wandb", folder / "wandb" / touched[1]),
    }
    if touched[0] in formats.READERS:
        with _package_errors_suppressed():
            formats.READERS[touched[0]](folder, output)
    if touched[0] in readers:
        with _package_errors_suppressed():
            readers[touched[0]]()
    if run:
        with _package_errors_suppressed():
            require_plain(inputs.runs / run)
            read_record(inputs.runs / run / "record.json")
        with _package_errors_suppressed():
            read_yaml(inputs.runs / run / "config.yaml", RECORD)
    return lost


def _read_runs(inputs: InputFolder, touched: list[str], how: str, report: bool, output: Path, lost: list[str]) -> None:
    """Call the readers of folders of runs: with any one file damaged they succeed and show all other runs."""
    run = touched[1] if touched[0] == "runs" else ""
    folder = inputs.folder
    with contextlib.redirect_stdout(io.StringIO()):  # no exception is suppressed here
        runs, damaged = load([str(inputs.runs)])
        text = texts(built("grid", runs, damaged))["md"]
        known = {one.id for one in runs}
        lost += [f"run {path.name}" for path in inputs.runs.iterdir() if path.name not in known | {run}]
        if run and touched[-1] == "record.json" and how != "absent" and run not in known and run not in damaged:
            lost.append(f"the message about {run}")
        if run and touched[-1] != "record.json" and run not in known:
            lost.append(f"record {run}, of which only {touched[-1]} was damaged")
        titles = {one.id: method_title(one.record.method, one.record.rank) for one in runs}
        lost += [f"row of {titles[one.id]}" for one in runs if one.id != run and titles[one.id] not in text]
        _ = [trace_run(one) for one in runs]
        if report:
            build_report(output / "report", runs, damaged, (), external.read_all(folder / "external")[0])
            pages = {path.stem for path in (output / "report" / "runs").glob("*.html")}
            lost += [f"page of {one.id}" for one in runs if one.id not in pages]
        for frame in (load_steps(inputs.runs), load_samples(inputs.runs)):
            lost += [f"rows of {one}" for one in run_ids(inputs) - {run} if one not in set(frame["run_id"])]
    with _package_errors_suppressed():
        figure_data.load([str(inputs.runs)])


def run_ids(inputs: InputFolder) -> set[str]:
    return {name.split("/")[1] for name in inputs.files if name.startswith("runs/")}


def _read_external(folder: Path, touched: list[str], lost: list[str]) -> None:
    records, damaged = external.read_all(folder / "external")
    others = {"a", "b"} - {Path(touched[-1]).stem}
    lost += [f"external record {name}" for name in others if name not in {record.name for record in records}]
    if len(records) + len(damaged) < 1:
        lost.append("the message about external records")


def _read_newest_checkpoint(folder: Path, output: Path) -> None:
    """Read a copy, since a damaged checkpoint is renamed."""
    copy = output / "checkpoints"
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(folder / "checkpoints", copy, symlinks=True, copy_function=_copy_file_or_pipe)
    checkpoint.newest(copy)


def _copy_file_or_pipe(source: str, target: str) -> None:
    if os.path.isfile(source) or os.path.islink(source):
        shutil.copyfile(source, target, follow_symlinks=False)
    else:
        os.mkfifo(target)


def _read_import(tool: str, path: Path) -> None:
    with external.importing(tool, path):
        _ = peft.read(path) if tool == "peft" else wandb.read(path)


@contextlib.contextmanager
def _package_errors_suppressed() -> Iterator[None]:
    """Suppress the errors that this package raises for users, and printed output; other exceptions pass."""
    with contextlib.suppress(SdsbenchError), contextlib.redirect_stdout(io.StringIO()):
        yield


class ReaderHung(BaseException):
    """A BaseException, so that no reader catches it as an error of the file."""


def campaign(
    inputs: InputFolder, count: int, seed: int, output: Path, log: Callable[[str], None] = lambda _: None
) -> list[str]:
    """Apply `count` mutations one after the other; returns the faults, each with its number and seed to repeat it."""
    found: list[str] = []
    rng = random.Random(seed)
    elsewhere = _paths_below(inputs.folder.parent, inputs.folder, output)
    signal.signal(signal.SIGALRM, _raise_hung)
    for number in range(count):
        name, how = mutate(inputs, rng)
        signal.alarm(HANG)
        try:
            lost = read_all(inputs, name, how, number % REPORT_EVERY == 0, output)
            found += [f"mutation {number} of seed {seed} ({how} {name}) lost {what}" for what in lost]
        except (Exception, ReaderHung):
            last = "\n".join(traceback.format_exc().splitlines()[-8:])
            found.append(f"mutation {number} of seed {seed} ({how} {name}):\n{last}")
        finally:
            signal.alarm(0)
        restore(inputs, name)
        if number % 1000 == 999:
            log(f"{number + 1} mutations, {len(found)} faults")
    if _paths_below(inputs.folder.parent, inputs.folder, output) != elsewhere:
        found.append("something was written outside")
    inside = {str(p.relative_to(inputs.folder)) for p in inputs.folder.rglob("*") if not p.is_dir()}
    found += [f"written into the input folder: {name}" for name in sorted(inside - set(inputs.files))]
    return found


def _raise_hung(_signal: int, _frame: object) -> None:
    raise ReaderHung(f"longer than {HANG} seconds")


def _paths_below(root: Path, *excluded: Path) -> set[str]:
    return {str(path) for path in root.rglob("*") if not any(path.is_relative_to(one) for one in excluded)}


def main() -> int:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 20_000
    seed = int(sys.argv[2]) if len(sys.argv) > 2 else 0
    with tempfile.TemporaryDirectory() as folder:
        inputs = write_inputs(Path(folder) / "inputs")
        found = campaign(inputs, count, seed, Path(folder) / "output", lambda text: print(text, flush=True))
    print("\n\n".join(found[:20]))
    print(f"{count} mutations of seed {seed}: {len(found)} faults")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
