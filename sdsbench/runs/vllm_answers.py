"""eval.engine=vllm: which models vLLM can answer for, what it is given to load, and what is recorded of it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch

from sdsbench.core.errors import Refused
from sdsbench.evaluation.generation import GeneratedAnswer, Generator, Request
from sdsbench.evaluation.text import Answering, Verdicts, own_answers
from sdsbench.evaluation.vllm_engine.process import ServedModel, VllmGenerator, empty_folder, python_of, version_of
from sdsbench.evaluation.vllm_engine.verdicts import trusted_answers
from sdsbench.methods.attach import adapted_layers, merged
from sdsbench.methods.base import Layers, Method
from sdsbench.methods.export import as_lora, export_peft
from sdsbench.models.load import LoadedModel
from sdsbench.runs.configuration.schema import RunConfig
from sdsbench.runs.export import TASK_TYPES, write_model
from sdsbench.runs.vllm_adapters import vllm_rank
from sdsbench.training.precision import Device


@dataclass(frozen=True)
class VllmAnswers:
    """Answers requests with vLLM where its verdicts can be trusted; `note` receives a sentence that says whether."""

    served: ServedModel
    python: str
    folder: Path
    note: Callable[[str], None]

    def __call__(self, own: Generator, requests: Sequence[Request], verdicts: Verdicts) -> list[GeneratedAnswer]:
        version = version_of(self.python)
        found = trusted_answers(own, VllmGenerator(own, self.served, self.python, self.folder), requests, verdicts)
        if found.other_verdicts:
            text = f"other verdicts on {found.other_verdicts} of {found.compared} questions: answered by transformers"
        else:
            same = found.compared - found.other_texts
            text = f"the same verdicts on {found.compared} questions ({same} of the texts are the same)"
        self.note(f"vllm {version}: {text}")
        return found.answers


@contextmanager
def answering(
    config: RunConfig, loaded: LoadedModel, device: Device, folder: Path, note: Callable[[str, str], None]
) -> Iterator[Callable[[str], Answering]]:
    """How the run's model answers an evaluation set, by its name, inside the block.

    `folder` holds what vLLM loads, and is removed afterwards; `note(evaluation, sentence)` is told which engine
    answered.
    """
    if config.eval.engine == "transformers":
        yield lambda evaluation: own_answers
        return
    with empty_folder(folder):
        served, python = served_model(loaded, device, folder / "model"), python_of(config.eval.vllm_python)
        yield lambda evaluation: VllmAnswers(served, python, folder / "exchange", partial(note, evaluation))


def served_model(loaded: LoadedModel, device: Device, folder: Path) -> ServedModel:
    """Write what vLLM loads into `folder`.

    Where this project evaluates a merged fp32 copy (on a CPU, or with dtype=float32), the same weights. In 16 bits
    merging would round the update away (docs/speed.md): the base model's own folder with the exported peft adapter.
    """
    layers, dtype = adapted_layers(loaded.model), evaluated_dtype(device)
    name = str(dtype).removeprefix("torch.")
    if layers and dtype != torch.float32:
        return with_adapter(layers, loaded.folder, name, folder)
    write_model(folder, merged(loaded.model, dtype), loaded)
    return ServedModel(folder, name)


def with_adapter(layers: Layers, base: Path, dtype: str, folder: Path) -> ServedModel:
    """The base model's folder with the layers' update, written to `folder` as a peft adapter."""
    method = next(iter(layers.values())).method
    export_peft(folder, layers, method, str(base), task_type=TASK_TYPES["decoder"])
    rank = vllm_rank(json.loads((folder / "adapter_config.json").read_text()))
    return ServedModel(base, dtype, folder, rank)


def evaluated_dtype(device: Device) -> torch.dtype:
    """The dtype in which runs.evaluate.evaluation_model computes."""
    return torch.float32 if device.device.type == "cpu" else device.dtype


def require_servable(config: RunConfig, layers: Layers, method: Method, device: Device) -> None:
    """Raises Refused, before the first step, if vLLM cannot answer for the model that this method trains."""
    if config.eval.engine == "transformers":
        return
    if not layers and not method.trains_base:
        raise _refused(method, "it has layers of its own, which vLLM does not know")
    if layers and evaluated_dtype(device) != torch.float32 and vllm_rank(as_lora(layers, method)[0]) is None:
        raise _refused(
            method, "vLLM serves plain LoRA of rank up to 512, and merging into 16 bits would round the update"
        )


def _refused(method: Method, reason: str) -> Refused:
    return Refused(f"eval.engine=vllm with method={method.name}: {reason}. Use eval.engine=transformers.")
