"""Writing a bundle: records, configurations, step logs, answers and the frozen plan, without private data."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import zstandard

from sdsbench.core import samples, step_log
from sdsbench.core.containment import contained
from sdsbench.core.errors import Refused, Unavailable
from sdsbench.core.file_hash import content_hash
from sdsbench.core.limits import ANSWERS, STEPS
from sdsbench.core.package import PACKAGE
from sdsbench.core.private import private_in
from sdsbench.core.reading import files_in, read_bytes
from sdsbench.results.bundles import archive, consistency
from sdsbench.results.bundles.manifest import FILE, LOCK, PLAN, RUNS, BundleManifest, Entry
from sdsbench.results.bundles.opened import shown
from sdsbench.results.frames import Found, read_all
from sdsbench.runs import origin
from sdsbench.runs.configuration.identity import COST_KEYS, field_of
from sdsbench.sweeps import plan as plans
from sdsbench.sweeps.plan import Plan


@dataclass(frozen=True)
class Written:
    """What went into a bundle, and notes for the user."""

    runs: int
    remarks: list[str]


def write(path: Path, places: Sequence[str | Path], plan: Plan | None = None, verdicts_only: bool = False) -> Written:
    """Write the runs of these folders (with `plan`: only the plan's runs) into the bundle `path`.

    `verdicts_only` keeps what tables and verdicts read: it leaves out texts of questions and answers, config.yaml, the
    plan and the step logs, except the probe lines, which claims about gradients read.

    Raises Unavailable if there is no finished or failed run, Refused if a file contains private data.
    """
    records, damaged = read_all(places)
    chosen = [found for found in records if plan is None or found.record.run_id in plan.manifest.runs]
    ended = [found for found in chosen if found.record.status != "running"]
    remarks = [*damaged.values()]
    remarks += [f"run {found.record.run_id} is left out: it is running" for found in chosen if found not in ended]
    if not ended:
        raise Unavailable(f"no run to put into a bundle in {', '.join(map(str, places))}.\n" + "\n".join(remarks))
    files: dict[str, bytes] = {}
    for found in ended:
        files |= {f"{RUNS}/{found.record.run_id}/{name}": content for name, content in _files_of(found, verdicts_only)}
        remarks += [
            f"run {found.record.run_id}: {text}" for text in consistency.contradictions(found.folder, packed=False)
        ]
    if plan is not None and not verdicts_only:
        if remark := _outside(plan):
            remarks.append(remark)
        else:
            files |= dict(_plan_files(plan))
    lock = PACKAGE.parent / LOCK
    if lock.is_file():
        files[LOCK] = lock.read_bytes()
    _refuse_private(files)
    manifest = BundleManifest(
        format=1,
        name=path.stem,
        git_commit=origin.commit(),
        versions=origin.package_versions(),
        verdicts_only=verdicts_only,
        plugins=_plugins(ended),
        adapters=_adapters(ended),
        files={
            name: Entry(sha256=hashlib.sha256(content).hexdigest(), bytes=len(content))
            for name, content in files.items()
        },
    ).sealed()
    text = manifest.model_dump_json(indent=1) + "\n"
    listed, rest = [(FILE, text.encode())], sorted(files.items())
    if verdicts_only:
        archive.pack(path, listed, together=rest)
    else:
        archive.pack(path, [*listed, *rest])
    return Written(len(ended), [shown(remark) for remark in remarks])


def _files_of(found: Found, verdicts_only: bool) -> Iterator[tuple[str, bytes]]:
    folder = found.folder
    yield "record.json", read_bytes(folder / "record.json", STEPS, below=folder)
    if verdicts_only:
        for path in files_in(folder / "samples", ".jsonl.zst"):
            yield f"samples/{path.name}", samples.packed(samples.without_texts(samples.read(path)))
        probes = [line for line in step_log.read(folder / "metrics.jsonl") if line["kind"] == "probe"]
        if probes:
            yield "metrics.jsonl", step_log.text_of(probes).encode()
        return
    yield "config.yaml", consistency.configuration_text(found.record).encode()
    if (folder / "metrics.jsonl").exists():
        yield "metrics.jsonl", read_bytes(folder / "metrics.jsonl", STEPS, below=folder)
    for inside in ("samples", "probes"):
        for path in files_in(folder / inside, ".jsonl.zst"):
            yield f"{inside}/{path.name}", read_bytes(path, ANSWERS, below=folder)


def _plan_files(plan: Plan) -> Iterator[tuple[str, bytes]]:
    """The frozen plan's files; the local folders of runs and data are replaced by the defaults."""
    placing = {key: value if key in COST_KEYS else _default(key) for key, value in plan.manifest.placing.items()}
    manifest = plan.manifest.model_copy(update={"placing": placing})
    yield f"{PLAN}/manifest.json", plans.sealed_text(manifest).encode()
    for identity in plan.manifest.runs:
        path = contained(plan.folder, "runs", f"{identity}.json")
        yield f"{PLAN}/runs/{identity}.json", read_bytes(path, STEPS, below=plan.folder)


def _default(key: str) -> Any:
    return field_of(key).get_default(call_default_factory=True)


def _outside(plan: Plan) -> str:
    """Why the plan is left out of the bundle (it holds private data); empty if it is not."""
    for name, content in _plan_files(plan):
        if found := private_in(content.decode(), paths=True):
            return f"the frozen plan is left out: {name} holds {found}"
    return ""


def _refuse_private(files: Mapping[str, bytes]) -> None:
    for name, content in files.items():
        packed = name.endswith(".zst")
        text = zstandard.ZstdDecompressor().decompressobj().decompress(content) if packed else content
        ours = not packed and name != LOCK
        if found := private_in(text.decode(errors="replace"), paths=ours):
            raise Refused(f"{name} holds {found}; nothing was written. Run it again where nothing private is in it.")


def _plugins(records: Sequence[Found]) -> list[str]:
    parts = {part for f in records if f.record.provenance for part in f.record.provenance.code}
    return sorted(origin.plugins_in(parts))


def _adapters(records: Sequence[Found]) -> dict[str, str]:
    """run id -> sha256 of its trained tensors, for runs whose adapter file is there."""
    found = {}
    for one in records:
        path = one.folder / "adapter" / "adapter.safetensors"
        if path.is_file() and not path.is_symlink():
            found[one.record.run_id] = content_hash(path)
    return found
