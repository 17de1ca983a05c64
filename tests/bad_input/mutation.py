"""A small folder of everything that the project reads, damaged in one place at a time by a seeded generator.

    python -m tests.bad_input.mutation 20000 [SEED]     # `make mutations`

After each mutation its readers are asked: tables, frames, verdict's and figures' data, status of a plan, bundles,
checkpoints, imported results, the run's own folder, and those of formats.py; after some of them the whole report.
Nothing may end in another exception than this package's own, hang, write outside, or lose what was not touched.
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
from sdsbench.results.claims.claim_files import read as read_claims
from sdsbench.results.frames import load_samples, load_steps
from sdsbench.results.importers import external, peft_results, wandb
from sdsbench.results.report.report_folder import build as build_report
from sdsbench.results.tables.by_name import built, texts
from sdsbench.results.tables.loaded_runs import load
from sdsbench.results.tables.titles import method_title
from sdsbench.results.tables.trace import trace_run
from sdsbench.studies.probe_figures.probed_runs import probed_runs
from sdsbench.sweeps import plan as plans
from sdsbench.sweeps.slurm import submissions
from sdsbench.sweeps.states import States
from sdsbench.training import checkpoint
from tests.bad_input import formats
from tests.bad_input.test_bad_input import _checkpoint
from tests.results.tables.fixtures import make_record, make_samples, write_run
from tests.results.test_importers import RESULT
from tests.sweeps.tools import put_record, tiny_plan

HANG = 120  # seconds after which a reader counts as hanging: a thousand times what any needs
REPORT_EVERY = 100


@dataclass(frozen=True)
class Readable:
    """The folder, its pristine files, and what an untouched reading of it says."""

    folder: Path
    files: dict[str, bytes]  # by relative path
    methods: tuple[str, ...]

    @property
    def runs(self) -> Path:
        return self.folder / "runs"


METHODS = ("lora", "dora", "pissa")


def make(folder: Path) -> Readable:
    """Records with metrics, answers and probes, a plan, imported results, a bundle, a checkpoint, claims and sweeps."""
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
    _checkpoint(folder / "checkpoints", 4)
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
    formats.make(folder)
    files = {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}
    return Readable(folder, files, METHODS)


# ---- mutations of bytes, of values, and of what a file is


def _truncate(content: bytes, chance: random.Random) -> bytes:
    return content[: chance.randrange(len(content) + 1)]


def _flip(content: bytes, chance: random.Random) -> bytes:
    made = bytearray(content)
    for _ in range(chance.choice((1, 1, 1, 8))):
        if made:
            made[chance.randrange(len(made))] ^= 1 << chance.randrange(8)
    return bytes(made)


def _enlarge(content: bytes, chance: random.Random) -> bytes:
    return content + chance.choice((b"\0", b"{}\n", b"1\n", b"[" * 5000, content, b" " * 10_000, b"9" * 6000))


ODD: tuple[Any, ...] = (
    None, True, 0, -1, 1, 10**30, 10**400, 1e308, -1e308, float("nan"), float("inf"), 0.5, "", "x", "../../x",
    "/etc/passwd", "a\nb", "\x1b[31m", "$\\foo{$", "[/red]", "=1+1", "\u202e", "x" * 5000, [], [1], [[1]], {}, {"a": 1},
    {"": {"": None}}, ["x", None], "2026-01-01", "${oc.env:HOME}",
)  # fmt: skip
"""Values of every kind, put where others were."""


def _places(tree: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield at
    children = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for key, value in children:
        yield from _places(value, (*at, key))


def retyped(tree: Any, chance: random.Random) -> Any:
    """The tree with one value of another kind, one key more or less, or one part nested in itself."""
    at = chance.choice(list(_places(tree)))
    if not at:
        return chance.choice(ODD)
    parent = tree
    for key in at[:-1]:
        parent = parent[key]
    how = chance.randrange(6)
    if how < 3:
        parent[at[-1]] = chance.choice(ODD)
    elif how == 3:
        del parent[at[-1]]
    elif how == 4:
        parent[at[-1]] = {"nested": [parent[at[-1]]]}
    elif isinstance(parent, dict):
        parent[chance.choice(("", "extra", "a\nb", "run_id", "x" * 300))] = chance.choice(ODD)
    else:
        parent.append(chance.choice(ODD))
    return tree


def _retype(name: str, content: bytes, chance: random.Random) -> bytes:
    """The file's values changed, its checksum made to fit: what somebody does who knows the format."""
    packed = name.endswith(".zst")
    text = zstandard.ZstdDecompressor().decompress(content) if packed else content
    if name.endswith((".jsonl", ".jsonl.zst")):
        lines = [json.loads(line) for line in text.splitlines()]
        position = chance.randrange(len(lines))
        lines[position] = retyped(lines[position], chance)
        made = "".join(json.dumps(line) + "\n" for line in lines).encode()
    elif name.endswith(".json"):
        tree = retyped(json.loads(text), chance)
        if isinstance(tree, dict) and "checksum" in tree and chance.random() < 0.9:
            with contextlib.suppress(ValueError, TypeError):
                facts = {key: value for key, value in tree.items() if key != "checksum"}
                sealed = checkpoint._checksum(facts) if "counters" in tree else sha256_of({**tree, "checksum": ""})
                tree["checksum"] = sealed
        made = json.dumps(tree).encode()
    elif name.endswith(".yaml"):
        tree = retyped(yaml.safe_load(text), chance)
        made = yaml.safe_dump(tree).encode(errors="replace")
    else:
        return _flip(content, chance)
    return zstandard.ZstdCompressor().compress(made) if packed else made


def mutate(given: Readable, chance: random.Random) -> tuple[str, str]:
    """Damage one file; returns (its relative path, what was done)."""
    # A change in a run's record is the commonest that matters; answers and logs of bundles have tests of their own.
    name = chance.choice(sorted(given.files))
    path, content = given.folder / name, given.files[name]
    how = chance.choice(
        ("truncate", "flip", "retype", "retype", "retype", "enlarge", "link", "FIFO", "folder", "absent")
    )
    if how in ("link", "FIFO", "folder", "absent"):
        path.unlink()
        if how == "link":
            path.symlink_to(chance.choice(("/dev/zero", "/etc/hostname", str(path), "../..", "nowhere")))
        elif how == "FIFO":
            os.mkfifo(path)
        elif how == "folder":
            path.mkdir()
        return name, how
    changes: dict[str, Callable[[], bytes]] = {
        "truncate": lambda: _truncate(content, chance),
        "flip": lambda: _flip(content, chance),
        "enlarge": lambda: _enlarge(content, chance),
        "retype": lambda: _retype(name, content, chance),
    }
    path.write_bytes(changes[how]())
    return name, how


def mend(given: Readable, name: str) -> None:
    path = given.folder / name
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
    path.write_bytes(given.files[name])


# ---- what is asked after each mutation


def ask(given: Readable, name: str, how: str, report: bool, output: Path) -> list[str]:
    """Every reader once; returns what was lost that was not touched. Raises what is no error of this package's."""
    folder, touched, lost = given.folder, name.split("/"), []
    run = touched[1] if touched[0] == "runs" else ""
    if run or report:
        _ask_runs(given, touched, how, report, output, lost)
    if touched[0] == "planned":
        with _ours():
            plan = plans.read(folder / "planned" / "plan")
            States(plan, folder / "planned" / "runs").counts()
            submissions(plan)
            for identity in plan.manifest.runs:
                with _ours():
                    plan.configuration(identity, {})
    readers: dict[str, Callable[[], object]] = {
        "bundle.zip": lambda: opened(folder / "bundle.zip"),
        "external": lambda: _external(folder, touched, lost),
        "claims.yaml": lambda: read_claims(folder / "claims.yaml"),
        "checkpoints": lambda: _newest(folder, output),
        "peft": lambda: _import("peft", folder / "peft" / "a.json"),
        "wandb": lambda: _import("wandb", folder / "wandb" / touched[1]),
    }
    if touched[0] in formats.READERS:
        with _ours():
            formats.READERS[touched[0]](folder, output)
    if touched[0] in readers:
        with _ours():
            readers[touched[0]]()
    if run:
        with _ours():
            require_plain(given.runs / run)
            read_record(given.runs / run / "record.json")
        with _ours():
            read_yaml(given.runs / run / "config.yaml", RECORD)
    return lost


def _ask_runs(given: Readable, touched: list[str], how: str, report: bool, output: Path, lost: list[str]) -> None:
    """What reads folders of runs: whatever is wrong with one file, these end well and show all others."""
    run = touched[1] if touched[0] == "runs" else ""
    folder = given.folder
    with contextlib.redirect_stdout(io.StringIO()):  # whatever is wrong with one file, these end well
        runs, damaged = load([str(given.runs)])
        text = texts(built("grid", runs, damaged))["md"]
        known = {one.id for one in runs}
        lost += [f"run {path.name}" for path in given.runs.iterdir() if path.name not in known | {run}]
        if run and touched[-1] == "record.json" and how != "absent" and run not in known and run not in damaged:
            lost.append(f"a word on {run}")
        if run and touched[-1] != "record.json" and run not in known:
            lost.append(f"record {run}, whose {touched[-1]} alone was touched")
        titles = {one.id: method_title(one.record.method, one.record.rank) for one in runs}
        lost += [f"row of {titles[one.id]}" for one in runs if one.id != run and titles[one.id] not in text]
        _ = [trace_run(one) for one in runs]
        if report:
            build_report(output / "report", runs, damaged, (), external.read_all(folder / "external")[0])
            pages = {path.stem for path in (output / "report" / "runs").glob("*.html")}
            lost += [f"page of {one.id}" for one in runs if one.id not in pages]
        for frame in (load_steps(given.runs), load_samples(given.runs)):
            lost += [f"rows of {one}" for one in known_runs(given) - {run} if one not in set(frame["run_id"])]
    with _ours():
        probed_runs(load([str(given.runs)])[0])


def known_runs(given: Readable) -> set[str]:
    return {name.split("/")[1] for name in given.files if name.startswith("runs/")}


def _external(folder: Path, touched: list[str], lost: list[str]) -> None:
    records, damaged = external.read_all(folder / "external")
    others = {"a", "b"} - {Path(touched[-1]).stem}
    lost += [f"external record {name}" for name in others if name not in {record.name for record in records}]
    if len(records) + len(damaged) < 1:
        lost.append("a word on external records")


def _newest(folder: Path, output: Path) -> None:
    """On a copy, since a damaged checkpoint is set aside."""
    copy = output / "checkpoints"
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(folder / "checkpoints", copy, symlinks=True, copy_function=_copy)
    checkpoint.newest(copy)


def _copy(source: str, target: str) -> None:
    if os.path.isfile(source) or os.path.islink(source):
        shutil.copyfile(source, target, follow_symlinks=False)
    else:
        os.mkfifo(target)


def _import(tool: str, path: Path) -> None:
    with external.importing(tool, path):
        _ = peft_results.read(path) if tool == "peft" else wandb.read(path)


@contextlib.contextmanager
def _ours() -> Iterator[None]:
    """Errors for users are what is wanted; everything else goes on to the caller."""
    with contextlib.suppress(SdsbenchError), contextlib.redirect_stdout(io.StringIO()):
        yield


class Hanging(BaseException):
    """Not an Exception, so that no reader's own boundary takes it for a fault of a file."""


def campaign(
    given: Readable, count: int, seed: int, output: Path, say: Callable[[str], None] = lambda _: None
) -> list[str]:
    """`count` mutations one after the other; returns what went wrong, each with how to see it again."""
    found: list[str] = []
    chance = random.Random(seed)
    elsewhere = _listing(given.folder.parent, given.folder, output)
    signal.signal(signal.SIGALRM, _hangs)
    for number in range(count):
        name, how = mutate(given, chance)
        signal.alarm(HANG)
        try:
            lost = ask(given, name, how, number % REPORT_EVERY == 0, output)
            found += [f"mutation {number} of seed {seed} ({how} {name}) lost {what}" for what in lost]
        except (Exception, Hanging):
            last = "\n".join(traceback.format_exc().splitlines()[-8:])
            found.append(f"mutation {number} of seed {seed} ({how} {name}):\n{last}")
        finally:
            signal.alarm(0)
        mend(given, name)
        if number % 1000 == 999:
            say(f"{number + 1} mutations, {len(found)} faults")
    if _listing(given.folder.parent, given.folder, output) != elsewhere:
        found.append("something was written outside")
    inside = {str(p.relative_to(given.folder)) for p in given.folder.rglob("*") if not p.is_dir()}
    found += [f"written into the folder that is read: {name}" for name in sorted(inside - set(given.files))]
    return found


def _hangs(_signal: int, _frame: object) -> None:
    raise Hanging(f"longer than {HANG} seconds")


def _listing(root: Path, *without: Path) -> set[str]:
    return {str(path) for path in root.rglob("*") if not any(path.is_relative_to(one) for one in without)}


def main() -> int:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 20_000
    seed = int(sys.argv[2]) if len(sys.argv) > 2 else 0
    with tempfile.TemporaryDirectory() as folder:
        given = make(Path(folder) / "given")
        found = campaign(given, count, seed, Path(folder) / "output", lambda text: print(text, flush=True))
    print("\n\n".join(found[:20]))
    print(f"{count} mutations of seed {seed}: {len(found)} faults")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
