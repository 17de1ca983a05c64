"""Printed instructions for an exported run: what it contains, how to load and serve it, what its scores mean."""

from __future__ import annotations

from collections.abc import Iterator
from shlex import quote

from sdsbench.core.console import aligned, labelled
from sdsbench.models.model_config import CLASSES
from sdsbench.runs.export import Exported
from sdsbench.runs.vllm_adapters import vllm_rank

_MEANINGS = {
    "drift_mean": "of the update is distorted by rounding merged weights to bfloat16 (mean over layers)",
    "drift_max": "of the update is distorted in the worst layer",
    "unchanged_mean": "of the updated weights are rounded back to the base's by bfloat16",
}
"""The meaning of the numbers of Exported.drift, each a share."""


def lines(exported: Exported) -> Iterator[str]:
    """The lines to print; sentences are wrapped to the terminal's width, but commands are not, so as to be copied."""
    record = exported.record
    yield labelled("written", f"{exported.folder}: {_what(exported)}")
    yield labelled("run", f"{record.run_id}: method={record.method} model={record.model} task={record.task}")
    for score in record.scores:
        if score.headline and score.stage == "trained":
            yield labelled(
                "score", f"{score.evaluation} ({score.scorer}) {score.shown(score.value)}, of {score.n} questions"
            )
    if exported.form == "peft":
        base = exported.base if exported.revision is None else f"{exported.base} at {exported.revision}"
        yield labelled("base", base)
        if exported.config.model.source != "hub":
            yield labelled("", "a folder of this machine; --base NAME writes another name into the adapter")
    yield aligned("load", _loading(exported))
    yield from _serving(exported)
    for name, value in exported.drift.items():
        yield labelled("bfloat16", f"{100 * value:.3g} % {_MEANINGS[name]}")


def _what(exported: Exported) -> str:
    if exported.adapter is None:
        return "a plain model folder, the update in its weights"
    rank, own = exported.adapter.get("r"), exported.record.rank
    if rank is None:
        return f"an adapter of peft's {exported.adapter['peft_type'].lower()}"
    doubled = " (2r: the update relative to the untouched base takes twice the rank)" if own and rank == 2 * own else ""
    return f"a peft adapter of rank {rank}{doubled}"


def _loading(exported: Exported) -> list[str]:
    """Python code that loads the export: one statement, so that its lines can be pasted as they are."""
    family = CLASSES[exported.config.model.family]
    if exported.form == "merged":
        return [f"model = {family}.from_pretrained(", f'    "{exported.folder}"', ")"]
    more = f', revision="{exported.revision}"' if exported.revision else ""
    if exported.config.model.family != "decoder":
        more += f", num_labels={_labels(exported)}"
    side = exported.config.model.resampled_size
    images = [f"# images of {side} x {side}: model(pixel_values, interpolate_pos_encoding=True)"] if side else []
    return [
        "model = peft.PeftModel.from_pretrained(",
        f"    {family}.from_pretrained(",
        f'        "{exported.base}"{more}',
        "    ),",
        f'    "{exported.folder}"',
        ")",
        *images,
    ]


def _serving(exported: Exported) -> Iterator[str]:
    if exported.config.model.family != "decoder":
        return
    if exported.adapter is None:
        yield aligned("serve", [f"vllm serve {quote(str(exported.folder))}"])
        return
    adapter = exported.adapter
    rank = vllm_rank(adapter)
    if rank is None:
        yield labelled("serve", "vLLM serves no such adapter; export it with --form merged")
        return
    revision = f" --revision {exported.revision}" if exported.revision else ""
    command = [
        f"vllm serve {quote(exported.base)}{revision} \\",
        f"  --enable-lora --max-lora-rank {rank} \\",
        f"  --lora-modules {quote(f'{exported.record.method}={exported.folder}')}",
    ]
    yield aligned("serve", command)
    yield labelled("", "where vLLM serves no adapters of this architecture (GPT-2's, say): export with --form merged")


def _labels(exported: Exported) -> int | None:
    from sdsbench.tasks import base as tasks

    return tasks.build(exported.config.task).num_labels
