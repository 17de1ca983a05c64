"""Every protocol composes for every method, and its resolved values are those of the paper's table."""

from __future__ import annotations

import pytest

from sdsbench.runs.configuration.compose import compose_run, options
from sdsbench.tasks import base

PAPERS = ["sds_lora/commonsense", "sds_lora/math", "sds_lora/vision"]
PAPERS += ["lora_sb/arithmetic", "lora_sb/commonsense", "lora_sb/glue", "lr_matters/math"]


def resolved(protocol: str, *overrides: str):
    return compose_run([f"protocol={protocol}", *overrides])


def test_all_protocols_are_here():
    assert set(options("protocol")) >= {*PAPERS, "quick"}


@pytest.mark.parametrize("protocol", PAPERS)
@pytest.mark.parametrize("method", options("method"))
def test_composes_for_every_method(protocol, method):
    config = resolved(protocol, f"method={method}")
    assert config.protocol.name == protocol and config.protocol.paper
    assert config.train.batch_size in (32, 64, 128, 144, 256)


@pytest.mark.parametrize(
    ("protocol", "overrides", "expected"),
    [
        ("sds_lora/commonsense", ["method=lora"], ("gemma_2b", 8, 16, 2e-4, 1, 32, 256, "linear", 0.0)),
        (
            "sds_lora/commonsense",
            ["method=sds_lora", "model=llama3_8b"],
            ("llama3_8b", 8, 4, 1e-4, 1, 32, 256, "linear", 0),
        ),
        ("sds_lora/math", ["method=sds_lora", "method.rank=32"], ("gemma_2b", 32, 4, 2e-4, 1, 32, 512, "cosine", 0.0)),
        ("sds_lora/math", ["method=lora", "method.rank=32"], ("gemma_2b", 32, 64, 2e-4, 1, 32, 512, "cosine", 0.0)),
        (
            "sds_lora/vision",
            ["task=vision/cars", "method=sds_lora"],
            ("vit_base", 8, 4, 5e-3, 20, 256, 512, "linear", 0),
        ),
        ("lora_sb/arithmetic", ["method=lora_sb"], ("mistral_7b", 96, 1, 1e-4, 1, 32, 512, "cosine", 0.02)),
        ("lora_sb/commonsense", ["method=lora"], ("llama3.2_3b", 32, 32, 2e-3, 2, 144, 256, "linear", 0.02)),
        (
            "lora_sb/glue",
            ["task=glue/rte", "method=lora_sb", "method.rank=24"],
            ("roberta_large", 24, 1, 1e-3, 30, 128, 256, "linear", 0.06),
        ),
        (
            "lora_sb/glue",
            ["task=glue/qnli", "method=lora"],
            ("roberta_large", 8, 8, 1e-3, 15, 128, 256, "linear", 0.06),
        ),
        ("lr_matters/math", ["method=pissa"], ("qwen3_0.6b", 128, 128, 2e-4, 1, 64, 512, "cosine", 0.03)),
    ],
)
def test_values_of_the_papers(protocol, overrides, expected):
    c = resolved(protocol, *overrides)
    found = (c.model.name, c.method.rank, c.method.alpha, c.train.lr, c.train.epochs, c.train.batch_size)
    assert (*found, c.train.max_length, c.train.schedule, c.train.warmup_ratio) == expected


def test_full_fine_tuning_of_the_sds_protocol_trains_the_targets_only():
    config = resolved("sds_lora/math", "method=full_ft")
    assert config.method.scope == "targets" and config.train.lr == 1e-5
    assert resolved("lora_sb/arithmetic", "method=full_ft").method.scope == "all"


def test_the_code_of_lora_sb_differs_from_its_paper():
    paper, code = (resolved("lora_sb/commonsense", f"protocol.variant={variant}") for variant in ("paper", "code"))
    assert (paper.train.batch_size, paper.train.weight_decay) == (144, 0.0)
    assert (code.train.batch_size, code.train.weight_decay) == (192, 0.01)
    assert resolved("lora_sb/glue", "protocol.variant=code").train.max_length == 128


def test_evaluation_as_the_papers_did_it():
    commonsense = resolved("sds_lora/commonsense").task
    assert (commonsense.beams, commonsense.max_new_tokens, commonsense.loss_on) == (4, 32, "sequence")
    for protocol in ("sds_lora/math", "lora_sb/arithmetic"):
        task = base.build(resolved(protocol).task)
        gsm8k, hendrycks = task.evaluations()
        assert gsm8k.prompt({"question": "?"}).endswith("### Response: Let's think step by step.")
        assert task.training_example({"query": "?", "response": "!"}).prompt.endswith("### Response:")
        assert hendrycks.max_new_tokens == 512
    assert resolved("lora_sb/arithmetic").data.order == "first" and resolved("sds_lora/math").data.order == "random"
    assert resolved("lora_sb/glue").eval.each_epoch


@pytest.mark.parametrize("model", ["micro", "smollm2_135m"])
def test_quick_is_for_the_small_models(model):
    config = resolved("quick", f"model={model}", "task=gsm8k", "method=sds_lora")
    assert config.train.max_steps == {"micro": 200, "smollm2_135m": 60}[model]
    assert config.train.lr == {"micro": 2e-3, "smollm2_135m": 2e-4}[model]
