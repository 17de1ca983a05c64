"""Run ids: which keys of each kind of run are part of its id, which only place it, and which are inert."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import pytest

from sdsbench import synthetic
from sdsbench.core.leaves import leaves
from sdsbench.core.section import Section
from sdsbench.runs.configuration.compose import compose_run, conf_folder, options
from sdsbench.runs.configuration.identity import (
    COST_KEYS,
    PLACING,
    inert_keys,
    named,
    placed,
    recorded_id,
    resolved,
    run_id,
    with_values,
)
from sdsbench.runs.configuration.schema import PROTOCOL_TABLES, RunConfig
from sdsbench.runs.keeper import _new_record
from sdsbench.tasks import base as tasks

PLACES = {
    "device", "threads", "output_root", "force", "plugins", "data.root", "eval.batch_size", "eval.vllm_python",
    "train.save",
    "data.train", "data.validation", "data.test",
    "train.checkpoint_every", "train.activation_checkpointing", "train.micro_tokens",
    "tracker.name", "tracker.project", "tracker.mode",
    "probe.every", "probe.rows",
}  # fmt: skip
ALWAYS_INERT = {
    "protocol.source", "protocol.rank", "protocol.alpha", "protocol.dropout", "protocol.targets", "protocol.lr",
    "protocol.variant", "protocol.variants", "protocol.seeds", "protocol.paper", "protocol.code", "protocol.ours",
    "model.architecture",
}  # fmt: skip
MICRO_FOLDER = Path(synthetic.__file__).parent / "micro"
CLIP = "train.clip"  # inert for methods that do not adjust gradients
NO_DECAY, NO_WARMUP = "train.decay_vectors", "train.warmup_rounding"
NO_BEST_STEP = "train.best_rows"  # inert where the result is that of the last step
UNTRAINED = "eval.untrained_limit"  # inert where the model is not evaluated before training
OWN_FILES = {"data.test_share", "data.name", "data.question"}
ALWAYS = OWN_FILES | {CLIP, NO_DECAY, NO_BEST_STEP}
HUB = ALWAYS | {
    UNTRAINED,
    "train.head_lr",
    "data.validation_rows",
    "eval.order",
}  # text tasks trained by epochs, scored on the test set
MICRO = ALWAYS | {"train.head_lr", "data.validation_rows", "train.epochs", "data.order"}
ADJUSTING = MICRO - {CLIP}
GLUE = ALWAYS | {UNTRAINED, "data.validation_rows", "data.order", "eval.order"}
VISION = ALWAYS | {UNTRAINED, NO_WARMUP, "data.validation_rows", "data.order", "eval.order", "train.max_length"}
GLUE_CODE = (GLUE - {NO_DECAY}) | {"method.sample_fraction"}
FULL = "method.targets"
LORA_SB_GRADIENT = {
    "method.eta", "method.sign", "method.samples", "method.sample_fraction", "method.gradient_batch",
    "method.gradient_dropout", "method.gradient_dtype",
}  # fmt: skip
PRE = {"method.pre_interval"}
SVD = {"method.svd_iterations", "method.svd_oversampling"}
DENSE_ADAM = {
    "method.betas", "method.epsilon", "method.moment_dtype", "method.first_count", "method.square_dtype",
}  # fmt: skip
OWN_ADAM = {"method.betas", "method.epsilon", "method.bias_correction"}
ALTLORA_BOTH = {"method.epsilon", "method.steps_per_turn", "train.betas", "train.weight_decay"}

CASES: list[tuple[list[str], set[str]]] = [
    (["method=sds_lora"], MICRO),
    (
        ["method=sds_lora", "method.variant=reset_lora"],
        MICRO | {"method.pre_steps", "method.refresh", "method.phases", "method.guard"},
    ),
    (["method=sds_lora", "method.refresh=never"], MICRO | {"method.phases", "method.guard"}),
    (["method=sds_lora", "method.refresh=every"], MICRO | {"method.phases"}),
    (["method=lora"], MICRO),
    (["method=lora", "data.train_limit=8"], MICRO - {"data.order"}),
    (["method=lora", "train.max_steps=null"], MICRO - {"train.epochs"}),
    (["method=lora", "train.optimizer=sgd"], MICRO | {"train.betas"}),
    (["method=lora", "train.optimizer=momentum"], MICRO | {"train.betas"}),
    (["method=lora", "eval.split=validation"], MICRO - {"data.validation_rows"}),
    (["method=lora", "eval.engine=vllm"], MICRO),
    (["method=full_ft"], MICRO | {FULL}),
    (["method=full_ft", "method.scope=targets"], MICRO),
    (["method=lora_xs"], MICRO | SVD),
    (["method=lora_xs", "method.svd=fast"], MICRO),
    (["method=pissa"], MICRO),
    (["method=pissa", "method.svd=exact"], MICRO | SVD),
    (["method=lora_pro"], ADJUSTING | DENSE_ADAM),
    (["method=lora_pro", "method.mode=full"], ADJUSTING | {"train.betas", "train.weight_decay"}),
    (
        ["method=lora_pro", "method.mode=full", "train.optimizer=sgd"],
        ADJUSTING | {"train.betas", "train.weight_decay"},
    ),
    (["method=lora_sb"], MICRO),
    (["method=lora_sb", "method.samples=3"], MICRO | {"method.sample_fraction"}),
    (
        ["method=lora_sb", "method.start=kaiming"],
        MICRO | LORA_SB_GRADIENT,
    ),
    *((["method=" + name], MICRO) for name in ("lora_ga", "lora_plus", "milora", "olora", "rslora")),
    (["method=dora"], MICRO | {"method.drop_base"}),
    (["method=dora", "method.dropout=0.1"], MICRO),
    (["method=lora", "train.best_every=5"], MICRO - {NO_BEST_STEP}),
    (["method=preconditioned_lora"], ADJUSTING | OWN_ADAM | {"method.weight_decay"}),
    (["method=preconditioned_lora", "train.clip_norm=null"], MICRO | OWN_ADAM | {"method.weight_decay"}),
    (["method=preconditioned_lora", "method.form=authors"], ADJUSTING | {"train.betas", "train.weight_decay"}),
    (["method=peft"], MICRO),
    (["method=altlora"], ADJUSTING | {"method.epsilon", "train.betas", "train.weight_decay"}),
    (["method=altlora", "method.second_moment=true"], ADJUSTING | {"train.betas", "train.weight_decay"}),
    (["method=altlora", "method.moves=both"], ADJUSTING | ALTLORA_BOTH),
    (["task=math"], MICRO),
    (["model=local", f"model.location={MICRO_FOLDER}"], MICRO | {"model.revision"}),
    (["task=commonsense", "task.scorers=[likelihood]"], MICRO | {"task.max_new_tokens", "task.beams"}),
    (["task=commonsense", "task.scorers=[likelihood,paper]"], MICRO),
    (["protocol=lora_sb/arithmetic"], HUB),
    (["protocol=lora_sb/commonsense"], HUB | {"data.order"}),
    (["protocol=lora_sb/glue", "task=glue/rte"], GLUE),
    (
        ["protocol=lora_sb/glue", "task=glue/rte", "method=lora_pro", "method.mode=full"],
        GLUE,
    ),  # its head is trained with AdamW
    (["protocol=lr_matters/math"], HUB),
    (["protocol=sds_lora/math", "method=full_ft"], HUB | {NO_WARMUP}),
    (["protocol=sds_lora/commonsense"], HUB | {NO_WARMUP, "data.order"}),
    (["protocol=sds_lora/vision"], VISION),
    (["protocol=sds_lora/vision", "variant=code"], VISION),
    (["protocol=lora_sb/glue", "task=glue/rte", "method=lora_sb", "variant=code"], GLUE_CODE),
    (["protocol=lora_xs/math"], HUB | SVD),
    (["protocol=lora_xs/commonsense"], (HUB - {NO_BEST_STEP}) | SVD | {"data.order"}),
    (["protocol=lora_xs/glue", "task=glue/rte"], (GLUE - {NO_DECAY}) | SVD | {NO_WARMUP}),
    (["protocol=dora/commonsense"], (HUB - {NO_BEST_STEP}) | {"data.order"}),
    (["protocol=pissa/metamath"], HUB),
    (["protocol=lora_pro/metamath", "variant=code"], (HUB - {CLIP}) | {"train.betas", "train.weight_decay"}),
]


@cache
def composed_config(words: tuple[str, ...]) -> RunConfig:
    micro = [] if any(word.startswith(("protocol=", "model=")) for word in words) else ["model=micro"]
    return compose_run([*micro, "data.source=embedded", *words])


def test_placing_and_cost_keys_are_those_declared() -> None:
    assert set(PLACING) == PLACES
    assert set(COST_KEYS) == {
        "device",
        "threads",
        "eval.batch_size",
        "train.micro_tokens",
        "train.activation_checkpointing",
    }


def test_record_lists_its_inert_keys() -> None:
    """Tables read the list from the record, so that later code cannot change the meaning of an older record."""
    config = composed_config(("method=lora",))
    assert _new_record(config, "0" * 16).inert == sorted(inert_keys(config))


def test_text_file_is_identified_by_its_name_without_the_folder() -> None:
    here, there, other = (
        composed_config(("method=lora", f"eval.text={path}")) for path in ("/a/t.txt", "b/t.txt", "a/u.txt")
    )
    assert run_id(here) == run_id(there) != run_id(other)
    assert resolved(here)["eval"]["text"] == "t.txt" and named(here)["eval"]["text"] == "/a/t.txt"


@pytest.mark.parametrize(
    ("words", "inert"), CASES, ids=lambda value: " ".join(value) if isinstance(value, list) else ""
)
def test_inert_keys_of_each_case(words: list[str], inert: set[str]) -> None:
    config = composed_config(tuple(words))
    pre_stage = (
        PRE if getattr(config.method, "pre_steps", None) == 0 else set()
    )  # a key of SDS-LoRA, the default method
    untrained = set() if config.eval.untrained else {"eval.untrained_limit"}
    no_images = set() if config.model.family == "vision" else {"model.image_size"}
    own_engine = set() if config.eval.engine == "vllm" else {"eval.engine"}
    assert inert_keys(config) == ALWAYS_INERT | inert | pre_stage | untrained | no_images | own_engine


def test_another_engine_names_the_run() -> None:
    """Its answers may differ from ours on questions that were not compared; where its Python lies changes nothing."""
    own, other, elsewhere = (
        composed_config(("method=lora", *words))
        for words in ((), ("eval.engine=vllm",), ("eval.engine=vllm", "eval.vllm_python=env/bin/python"))
    )
    assert run_id(own) != run_id(other) == run_id(elsewhere)


def test_run_id_follows_from_the_record_alone() -> None:
    configs = [composed_config(tuple(words)) for words, _ in CASES]
    recorded = [config for config in configs if config.model.source != "folder"]  # a model folder is not recorded
    assert len(recorded) > 20
    for config in recorded:
        assert recorded_id(resolved(config), inert_keys(config)) == run_id(config)


@pytest.mark.parametrize("words", [case[0] for case in CASES], ids=" ".join)
def test_every_key_changes_the_run_id_or_is_placing_or_inert(words: list[str]) -> None:
    """Another value of a key changes the run's id unless the key is placing or inert."""
    config = composed_config(tuple(words))
    # eval.engine has no effect at its default alone: every other engine names the run.
    name, silent = run_id(config), (PLACES | inert_keys(config)) - {"eval.engine"}
    keys = [f"{section}.{key}" for section, key in _section_keys(config)] + [key for key in _top_level_keys(config)]
    assert {leaf for leaf, _ in leaves(config.model_dump()) if not leaf.startswith(PROTOCOL_TABLES)} <= set(keys)
    for key in keys:
        if key in ("method.name", "task.name"):  # another value needs another class; CASES covers each
            continue
        changed = with_values(config, {key: _other_value(config, key)})
        assert (run_id(changed) == name) is (key in silent), key


def test_cases_cover_every_method_protocol_and_kind_of_task() -> None:
    configs = [composed_config(tuple(words)) for words, _ in CASES]
    assert {config.method.name for config in configs} == set(options("method"))
    assert {config.protocol.name for config in configs} == set(options("protocol"))
    assert {tasks.build(config.task).kind for config in configs} == {"text", "classification", "vision"}
    different = [run_id(composed_config((f"method={name}",))) for name in options("method")]
    assert len(set(different)) == len(different)


def test_integer_and_float_of_one_value_give_one_run_id() -> None:
    assert run_id(composed_config(("method.alpha=4",))) == run_id(composed_config(("method.alpha=4.0",)))


def test_placed_does_not_change_its_argument() -> None:
    tree: dict[str, Any] = {"train": {"lr": 1.0}, "seed": 0}
    assert placed(tree, {"train.save": "all", "probe.every": 2, "threads": 1}) == {
        "train": {"lr": 1.0, "save": "all"}, "probe": {"every": 2}, "seed": 0, "threads": 1,
    }  # fmt: skip
    assert tree == {"train": {"lr": 1.0}, "seed": 0}


def test_defaults_of_conf_and_of_the_sections_are_equal() -> None:
    """Users read conf/config.yaml; the sections' defaults apply where a key is left out (records, own protocols)."""
    import yaml

    tree = yaml.safe_load((conf_folder() / "config.yaml").read_text())
    for name, field in RunConfig.model_fields.items():
        if name in tree and not isinstance(tree[name], dict):
            assert tree[name] == field.default, name
    for name, kind in (("train", "train"), ("eval", "eval"), ("data", "data"), ("probe", "probe")):
        section: Any = type(getattr(composed_config(()), kind))
        for key, field in section.model_fields.items():
            if not str(tree[name][key]).startswith("${"):
                assert tree[name][key] == field.default, f"{name}.{key}"


def _section_keys(config: RunConfig) -> list[tuple[str, str]]:
    sections = [(name, getattr(config, name)) for name in RunConfig.model_fields]
    return [(name, key) for name, value in sections if isinstance(value, Section) for key in type(value).model_fields]


def _top_level_keys(config: RunConfig) -> list[str]:
    return [name for name in RunConfig.model_fields if not isinstance(getattr(config, name), Section)]


def _other_value(config: RunConfig, key: str) -> Any:
    """A value of the key's type that differs from the configured one."""
    *sections, name = key.split(".")
    section: Any = getattr(config, sections[0]) if sections else config
    return _other_value_of_type(type(section).model_fields[name].annotation, getattr(section, name))


def _other_value_of_type(annotation: Any, value: Any) -> Any:
    if get_origin(annotation) is Literal:
        return next(choice for choice in get_args(annotation) if choice != value)
    if isinstance(value, bool):
        return not value
    if isinstance(value, int | float):
        return value + 1 if isinstance(value, int) else value / 2 + 0.1
    if isinstance(value, str):
        return f"{value}x"
    if isinstance(value, dict):
        return {**value, "another": 1}
    if isinstance(value, list):
        return ["likelihood", "paper"] if value == ["paper"] else [*value, "x" if "str" in str(annotation) else 1]
    return _value_for_null(annotation)


def _value_for_null(annotation: Any) -> Any:
    """A value for an optional key whose configured value is null."""
    texts = str(annotation)
    return 3 if "int" in texts else 0.25 if "float" in texts else "x"
