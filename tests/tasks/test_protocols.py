"""Every protocol composes for every method, and its resolved values equal those of the paper and of its code."""

from __future__ import annotations

import importlib.util
import itertools
import re
from pathlib import Path

import pytest
import yaml

from sdsbench.core.errors import ConfigError
from sdsbench.runs.configuration.compose import compose_run, conf_folder, options
from sdsbench.runs.configuration.identity import run_id
from sdsbench.runs.configuration.paper import SETTINGS
from sdsbench.tasks import base

ROOT = Path(__file__).parents[2]
PAPERS = ["sds_lora/commonsense", "sds_lora/math", "sds_lora/vision"]
PAPERS += ["lora_sb/arithmetic", "lora_sb/commonsense", "lora_sb/glue", "lr_matters/math"]
PAPERS += [
    "lora_xs/math",
    "lora_xs/commonsense",
    "lora_xs/glue",
    "dora/commonsense",
    "pissa/metamath",
    "lora_pro/metamath",
]


def resolved(protocol: str, *overrides: str):
    return compose_run([f"protocol={protocol}", *overrides])


def test_protocols_of_all_papers_exist():
    assert set(options("protocol")) >= {*PAPERS, "quick"}


def protocols_and_methods() -> list:
    """Pairs of protocol and method. A pair without a file of its own combines two independent files, so a quarter of
    these pairs, with every protocol and every method among them, is tested; the others are marked slow."""
    own = set(options("protocol_method"))
    numbered = itertools.product(enumerate(PAPERS), enumerate(options("method")))
    return [
        pytest.param(
            protocol, method, marks=() if f"{protocol}/{method}" in own or (i + j) % 4 == 0 else pytest.mark.slow
        )
        for (i, protocol), (j, method) in numbered
    ]


@pytest.mark.parametrize(("protocol", "method"), protocols_and_methods())
def test_protocol_composes_for_every_method(protocol, method):
    config = resolved(protocol, f"method={method}")
    assert config.protocol.name == protocol and config.protocol.paper
    assert config.train.batch_size in (16, 32, 64, 128, 144, 256)


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
def test_resolved_values_equal_the_papers(protocol, overrides, expected):
    c = resolved(protocol, *overrides)
    found = (c.model.name, c.method.rank, c.method.alpha, c.train.lr, c.train.epochs, c.train.batch_size)
    assert (*found, c.train.max_length, c.train.schedule, c.train.warmup_ratio) == expected


def test_full_fine_tuning_of_the_sds_protocol_trains_only_the_targets():
    config = resolved("sds_lora/math", "method=full_ft")
    assert config.method.scope == "targets" and config.train.lr == 1e-5
    assert resolved("lora_sb/arithmetic", "method=full_ft").method.scope == "all"


def test_lora_sb_variants_have_the_values_of_paper_and_code():
    paper, code = (resolved("lora_sb/commonsense", f"variant={variant}") for variant in ("paper", "code"))
    assert (paper.train.batch_size, paper.train.weight_decay) == (144, 0.0)
    assert (code.train.batch_size, code.train.weight_decay) == (192, 0.01)
    assert resolved("lora_sb/glue", "variant=code").train.max_length == 128


def test_evaluation_settings_equal_the_papers():
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
def test_quick_protocol_has_values_for_the_small_models(model):
    config = resolved("quick", f"model={model}", "task=gsm8k", "method=sds_lora")
    assert config.train.max_steps == {"micro": 200, "smollm2_135m": 60}[model]
    assert config.train.lr == {"micro": 2e-3, "smollm2_135m": 2e-4}[model]


def test_alpha_may_be_a_multiple_of_the_rank():
    """LoRA's alpha = 2 r follows the rank set on the command line; a wrong rank is reported as one problem."""
    assert resolved("sds_lora/math", "method=lora", "method.rank=6").method.alpha == 12.0
    words = ["model=micro", "task=gsm8k", "method=lora", "method.alpha=0.5r", "method.rank=6"]
    assert resolved("quick", *words).method.alpha == 3
    for value, key in (("method.alpha=r2", "method.alpha"), ("method.rank=x", "method.rank")):
        with pytest.raises(ConfigError) as caught:
            resolved("sds_lora/math", "method=lora", value)
        assert [problem.key for problem in caught.value.problems] == [key]
        assert "r, 2r" in str(caught.value) or key == "method.rank"


def test_invalid_choices_of_variants_are_refused():
    for words, message in (
        (["protocol=lora_sb/glue", "protocol.variant=code"], "variant=paper or variant=code"),
        (["protocol=quick", "model=micro", "variant=code"], "accepted: paper with protocol=quick"),
        (["protocol_method=quick/lora"], "chosen by protocol"),
        (["protocol=lora_sb/glue", "variant=cod"], "Did you mean 'code'?"),
    ):
        with pytest.raises(ConfigError, match=message):
            compose_run(words)


def test_every_specialisation_file_can_be_chosen():
    """A file whose path names no existing protocol, task, model, method or variant would silently never be read."""
    groups = {
        "protocol_task": ["task"], "protocol_model": ["model"], "protocol_method": ["method"],
        "protocol_method_model": ["method", "model"], "protocol_variant": ["variant"],
        "protocol_variant_task": ["variant", "task"], "protocol_variant_method": ["variant", "method"],
    }  # fmt: skip
    found = {path.name for path in conf_folder().iterdir() if path.name.startswith("protocol_")}
    assert found <= groups.keys()
    for group in found:
        combinations = itertools.product(*(options(choice) for choice in ["protocol", *groups[group]]))
        assert set(options(group)) <= {"/".join(names) for names in combinations}, group


def test_protocols_page_equals_the_output_of_its_script():
    """docs/protocols.md also has a table for every protocol and source lines for every variant=code."""
    spec = importlib.util.spec_from_file_location("write_protocols", ROOT / "scripts" / "write_protocols.py")
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    page = (ROOT / "docs" / "protocols.md").read_text()
    assert script.document() == page, "run python scripts/write_protocols.py"
    for protocol in (name for name in options("protocol") if name != "quick"):
        assert f"## {protocol}\n" in page
        config = resolved(protocol, *(["task=glue/rte"] if protocol.endswith("glue") else []))
        if "code" in config.protocol.variants:
            assert "@" in config.protocol.code["repository"], "a repository and its commit"
            cited = [key for key, value in config.protocol.code.items() if re.search(r"\(.*\.(py|sh|json)", str(value))]
            assert len(cited) >= 5, f"{protocol}: the code's deviations have source lines"
    assert "no known difference" not in page


def stated_value(words: str) -> str | float | None:
    """The value at the start of a text (`6 %, int(...)`: 0.06; `fp16 autocast`: float16), or None for several."""
    if re.search(r"\)[,;] \d", words):
        return None
    number = re.match(r"(\d[\d.]*(?:e-?\d+)?)( %)?(?=[ ,]*$| \(|, )", words)
    if number:
        return float(number[1]) * (0.01 if number[2] else 1)
    return {"fp16": "float16", "bf16": "bfloat16", "fp32": "float32"}.get(re.split(r"[ ;,]", words)[0])


def single_values(table) -> dict[str, str | float]:
    """The settings of a run for which a protocol's table states a single value."""
    found = {key: stated_value(str(words)) for key, words in table.items() if key in SETTINGS}
    return {key: value for key, value in found.items() if value is not None}


def test_values_are_read_from_texts():
    read = {"100 steps (a.py)": None, "6 %, int(x) (a.py)": 0.06, "4e-3 (a.sh)": 0.004, "128, 2 x 64 (a.sh)": 128.0,
            "fp16 autocast over fp32 weights": "float16", "0": 0.0, "adjusted gradients": None,
            "10 (a.py), 50 (b.py)": None}  # fmt: skip
    assert {words: stated_value(words) for words in read} == read


@pytest.mark.parametrize("protocol", PAPERS)
def test_differences_from_the_authors_code_are_listed(protocol):
    """The values in the code's column equal those of variant=code, or the difference is listed in `ours` (fp16).

    If both variants give one run id, the paper's column must not contradict the code's.
    """
    words = ["task=glue/mrpc" if protocol == "lora_xs/glue" else "task=glue/rte"] if protocol.endswith("glue") else []
    method = protocol.partition("/")[0]
    words += [f"method={method if method in options('method') else 'lora'}"]
    variants = resolved(protocol, *words).protocol.variants
    assert variants == (["paper"] if protocol == "lr_matters/math" else ["paper", "code"])
    config = resolved(protocol, *words, f"variant={variants[-1]}")
    paper, code, ours = (getattr(config.protocol, name) for name in ("paper", "code", "ours"))
    for key, value in single_values(code).items():
        own = SETTINGS[key](config)
        same = own == (pytest.approx(value) if isinstance(value, float) else value)
        assert same or key in ours, (key, own, value)
    if run_id(config) == run_id(resolved(protocol, *words)):
        both = single_values(paper)
        assert {key: value for key, value in single_values(code).items() if both.get(key, value) != value} == {}


def test_fp16_is_listed_where_the_code_trains_in_it():
    found = {}
    for name in PAPERS:
        config = resolved(name, *(["task=glue/rte"] if name.endswith("glue") else []))
        if str(config.protocol.code.get("precision")).startswith("fp16"):
            found[name] = (
                config.dtype,
                "fp16 and its scaled loss are not offered" in config.protocol.ours["precision"],
            )
    listed = ("bfloat16", True)
    assert found == {"dora/commonsense": listed, "lora_xs/math": listed, "lora_xs/commonsense": listed}


def test_protocols_choose_the_grader_of_their_code():
    for protocol, grader in (("sds_lora", "paper"), ("dora", "paper"), ("lora_xs", "paper"), ("lora_sb", "lora_sb")):
        evaluations = base.build(resolved(f"{protocol}/commonsense").task).evaluations()
        assert {evaluation.headline for evaluation in evaluations} == {grader}


def test_settings_that_the_papers_leave_open_have_stated_values():
    """LoRA-XS's alpha at ranks that its authors do not use, damping, gamma, SVD iterations and clipping."""
    for rank in (32, 64, 96):
        assert resolved("lora_sb/commonsense", "method=lora_xs", f"method.rank={rank}").method.alpha == 64
    pro = resolved("lora_pro/metamath", "method=lora_pro").method
    assert (pro.damping, pro.damping_form, pro.first_count) == (1e-6, "relative", 1)
    assert (pro.mode, pro.scaling, pro.alpha / pro.rank) == ("full", "standard", 2)
    assert resolved("sds_lora/math", "method=lora_ga").method.gamma == 16
    for protocol, iterations in (("lr_matters/math", 16), ("sds_lora/math", 4)):
        assert resolved(protocol, "method=pissa").method.svd_iterations == iterations
    clips = {resolved(name, "method=lora_pro").train.clip for name in PAPERS}
    clips |= {resolved(f"sds_lora/{name}", "method=lora_pro", "variant=code").train.clip for name in ("math", "vision")}
    assert clips == {"raw"}
    assert resolved("lora_pro/metamath", "method=lora_pro", "variant=code").train.clip == "raw_norm"


def test_lora_xs_glue_settings_equal_the_authors_scripts():
    """Weight decay applies to every parameter; runs that start from MNLI have other lengths and warm-ups."""
    for task, epochs, warmup in (("cola", 10, 0.06), ("qnli", 10, 0.06), ("rte", 50, 0), ("stsb", 50, 0)):
        train = resolved("lora_xs/glue", f"task=glue/{task}").train
        assert (train.epochs, train.warmup_ratio, train.warmup_rounding) == (epochs, warmup, "down")
        assert (train.weight_decay, train.decay_vectors) == (0.01, True)
    start = "start_from='0123456789012345'"
    assert resolved("lora_xs/glue", "task=glue/mrpc", start).start_from == "0123456789012345"


@pytest.mark.parametrize(
    ("sweep", "part", "ranks"), [("vision", "paper", [8, 16, 32]), ("vision_code", "code", [8, 32])]
)
def test_stated_ranks_of_the_vision_protocol_equal_those_of_its_sweeps(sweep, part, ranks):
    words = resolved("sds_lora/vision").protocol
    tree = yaml.safe_load((conf_folder() / "sweep" / "sds_lora" / f"{sweep}.yaml").read_text())
    assert re.findall(r"\d+", getattr(words, part)["ranks"].partition(";")[0].partition("(")[0]) == [*map(str, ranks)]
    swept = [block["axes"]["method.rank"] for block in tree["blocks"] if "method.rank" in block["axes"]]
    assert swept and all(found == ranks for found in swept)
    assert ("variant=code" in tree["blocks"][0]["fixed"]) == (part == "code")


def test_tuned_glue_sweep_has_the_rates_of_lora_xs():
    tuned = yaml.safe_load((conf_folder() / "sweep" / "lora_sb" / "table3_tuned.yaml").read_text())
    assert (tuned["tune"]["key"], tuned["tune"]["grid"]) == ("train.lr", [1e-4, 5e-4, 1e-3])
    assert all("protocol=lora_sb/glue" in block["fixed"] for block in tuned["blocks"])


def test_variant_code_has_the_values_of_the_authors_code():
    """One value per deviation that can be configured; other deviations are listed under `ours`."""
    sb = resolved("lora_sb/arithmetic", "method=lora_sb", "variant=code")
    assert (sb.method.eta, sb.method.gradient_batch, sb.method.samples, sb.method.svd) == ("code", 3, 50, "authors")
    assert (sb.method.factor_dtype, sb.method.r_dtype, sb.train.weight_decay) == ("bfloat16", "bfloat16", 0.01)
    glue = resolved("lora_sb/glue", "task=glue/rte", "method=lora_sb", "variant=code")
    assert (glue.method.samples, glue.method.gradient_dropout, glue.train.max_length) == (2, True, 128)
    assert (glue.train.decay_vectors, glue.train.warmup_rounding) == (True, "down")
    for protocol, steps in (("math", 50), ("commonsense", 55), ("vision", 50)):
        assert resolved(f"sds_lora/{protocol}", "method=sds_lora", "variant=code").method.pre_steps == steps
        assert resolved(f"sds_lora/{protocol}", "method=sds_lora").method.pre_steps == 0
        for method in ("dora", "pissa", "preconditioned_lora", "lora_plus", "altlora"):
            config = resolved(f"sds_lora/{protocol}", f"method={method}", "variant=code", "method.rank=16").method
            assert config.alpha / config.rank == pytest.approx(4 / 16**0.5), method
    ga = resolved("sds_lora/math", "method=lora_ga", "variant=code").method
    assert (ga.gamma, ga.samples) == (512, 32)
    assert resolved("sds_lora/math", "method=lora_plus", "variant=code").method.ratio == 1
    assert resolved("sds_lora/vision", "variant=code").dtype == "float32"
    assert resolved("sds_lora/vision", "variant=code").method.clear_head
    for protocol, mean_over in (("arithmetic", 1), ("commonsense", 6)):
        found = resolved(f"lora_sb/{protocol}", "method=lora_sb", "variant=code")
        assert (found.train.mean_over, found.task.tokenize) == (mean_over, "together")
        assert resolved(f"lora_sb/{protocol}", "method=full_ft", "variant=code").train.mean_over is None
        assert resolved(f"lora_sb/{protocol}", "method=lora_sb").task.tokenize == "apart"
    assert (sb.method.gradient_dtype, glue.method.gradient_dtype) == ("bfloat16", "float32")
    orders = {
        name: resolved(f"sds_lora/{name}", "variant=code").train.order for name in ("math", "commonsense", "vision")
    }
    assert orders == {"math": "repeated", "commonsense": "shuffled", "vision": "sequential"}
    math = resolved("sds_lora/math", "variant=code").task
    assert (math.input_field, math.tokenize) == (True, "together")
    both = (("lora_pro", "mode", "efficient"), ("altlora", "second_moment", True), ("dora", "drop_base", True))
    both += (("altlora", "moves", "both"),)
    for method, key, value in both:
        assert getattr(resolved("sds_lora/math", f"method={method}", "variant=code").method, key) == value
    pro = resolved("lora_pro/metamath", "method=lora_pro", "variant=code").method
    assert (pro.mode, pro.damping, pro.damping_form, pro.first_count, pro.alpha) == ("full", 1e-8, "absolute", 2, 16)
    assert resolved("pissa/metamath").method.svd_iterations == 16
    assert resolved("lora_xs/commonsense").method.alpha / 32 == 2
    assert resolved("dora/commonsense").method.drop_base
    pro_rows = resolved("lora_pro/metamath", "method=sds_lora", "variant=code")
    assert (pro_rows.train.mean_over, pro_rows.task.tokenize, pro_rows.task.template) == (1, "together", "lora_pro")
    assert (pro_rows.task.train_types, pro_rows.data.max_tokens, pro_rows.data.train_limit) == ("gsm", 512, 100000)
    for protocol, variant, template, mean_over in (
        ("sds_lora", "code", "llm_adapters", None),
        ("sds_lora", "paper", "plain", None),
        ("dora", "paper", "llm_adapters", None),
        ("lora_xs", "paper", "lora_xs", 1),
    ):
        found = resolved(f"{protocol}/commonsense", f"variant={variant}")
        assert (found.task.template, found.train.mean_over, found.task.beams) == (template, mean_over, 4)
        assert (found.task.tokenize == "together") == (template != "plain")
