"""The memory count of encoders against what autograd saves, and against the card that the papers used."""

from __future__ import annotations

import pytest
import torch
from transformers import AutoConfig, AutoModelForSequenceClassification

from sdsbench.methods import base as methods
from sdsbench.methods.attach import attach
from sdsbench.methods.targets import matches
from sdsbench.models import architecture
from sdsbench.models.head import unfreeze_head
from sdsbench.runs.configuration.compose import compose_run
from sdsbench.sweeps import cost, memory_encoders
from sdsbench.tasks.sentences import EncodedSentence
from sdsbench.training.classifier_objective import LabelledObjective
from sdsbench.training.saved_bytes import saved_bytes

LENGTHS = (13, 4, 9, 2, 7)
FACTS = {
    "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": 60,
    "pad_token_id": 1, "max_position_embeddings": 64, "num_labels": 3, "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
}  # fmt: skip
SOME = ["query", "value", "attention.output.dense", "output.dense"]


@pytest.mark.parametrize("dtype", (torch.float32, torch.bfloat16), ids=("float32", "bfloat16"))
@pytest.mark.parametrize("targets", (SOME, ["all-linear"]), ids=("some", "all"))
@pytest.mark.parametrize("name", ("full_ft", "lora", "dora", "lora_xs", "sds_lora"))
@pytest.mark.parametrize("kind", memory_encoders.KINDS)
def test_saved_bytes_are_exact(kind: str, name: str, targets: list[str], dtype: torch.dtype) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = AutoConfig.for_model(kind, **FACTS)
        model = AutoModelForSequenceClassification.from_config(config, dtype=dtype).train()
    keys = {} if name == "full_ft" else {"rank": 4, "targets": targets}
    method = methods.build(methods.lookup(name)[1](name=name, **keys))
    attach(model, method, 0)
    unfreeze_head(model)
    if name == "sds_lora":
        method.split_done = True
    examples = [EncodedSentence({"input_ids": list(range(3, 3 + n)), "attention_mask": [1] * n}, 1.0) for n in LENGTHS]
    if kind == "bert":
        examples = [EncodedSentence({**e.inputs, "token_type_ids": [0] * e.length}, 1.0) for e in examples]
    objective = LabelledObjective(None, regression=False, model=model)  # type: ignore[arg-type]
    found = saved_bytes(model, lambda: objective.loss(model, examples, torch.device("cpu")))
    facts = {**FACTS, "model_type": kind}
    shapes = architecture.linear_layers(facts)
    adapted = {key: shape for key, shape in shapes.items() if name == "full_ft" or matches(key, targets)}
    assert memory_encoders.saved_bytes(method, adapted, facts, LENGTHS, dtype.itemsize) == found


@pytest.mark.parametrize("task", ("glue/cola", "glue/rte", "glue/qnli"))
def test_the_papers_glue_runs_fit_the_papers_card(task: str) -> None:
    """LoRA-SB trained RoBERTa-large in fp32 with batch 128 on an A6000; more tokens need more memory."""
    config = compose_run(["protocol=lora_sb/glue", f"task={task}", "method=lora"])
    found = cost.modelled(config, memory=True)
    assert found is not None and found.bytes is not None
    assert cost.fits(found.bytes)["A6000 48 GB"]
    short, long = (memory_encoders.encoder_memory(config, [n] * 128, 4) for n in (20, 256))
    assert short is not None and long is not None
    assert short.total < found.bytes < long.total or task == "glue/cola"
    assert long.total > 48e9, "the padded worst case is what a plan must not count"
