"""Composing configurations: one message names every problem with key, value, accepted values, nearest spelling."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from sdsbench.core.errors import ConfigError
from sdsbench.runs.configuration.compose import compose_run, conf_folder, flat_keys, options
from sdsbench.runs.configuration.identity import run_id

MICRO = ["model=micro", "data.source=embedded"]


def problems(*overrides: str) -> dict[str, str]:
    """The text of each problem by its key."""
    with pytest.raises(ConfigError) as caught:
        compose_run([*MICRO, *overrides])
    return {problem.key: str(problem) for problem in caught.value.problems}


@pytest.mark.parametrize(
    ("override", "key", "words"),
    [
        ("metod.rank=3", "metod.rank", "Did you mean 'method.rank'?"),
        ("rank=3", "rank", "Did you mean 'method.rank'?"),
        ("method=full_ft method.rank=4", "method.rank", "method=full_ft has no rank; its keys: method.targets,"),
        ("method=lora method.guard=1", "method.guard", "method=lora has no guard; its keys: method.targets,"),
        ("method=lroa", "method", "Did you mean 'lora'?"),
        ("task=gsmk8", "task", "Did you mean 'gsm8k'?"),
        ("method.rank=abc", "method.rank", "a whole number"),
        ("method.rank=2.5", "method.rank", "a whole number"),
        ("method.rank=0", "method.rank", "from 1"),
        ("method.rank=1000", "method.rank", "1 to"),
        ("method.alpha=0", "method.alpha", "above 0"),
        ("method.alpha=null", "method.alpha", "a number"),
        ("method.dropout=1", "method.dropout", "below 1"),
        ("method.targets=[q_prj]", "method.targets", "Did you mean 'q_proj'?"),
        ("method.targets=[]", "method.targets", "all-linear"),
        ("train.lr=-1", "train.lr", "above 0"),
        ("train.lr=nan", "train.lr", "above 0"),
        ("train.schedule=cosin", "train.schedule", "cosine"),
        ("train.betas=[0.9]", "train.betas", "two numbers"),
        ("train.max_steps=0", "train.max_steps", "from 1"),
        ("train=5", "train", "one key below it"),
        ("data.source=s3", "data.source", "embedded"),
        ("data.source=local", "data.root", "needs it"),
        ("task.train_set=gsm9k", "task.train_set", "Did you mean 'gsm8k'?"),
        ("device=tpu", "device", "cpu"),
        ("seed=-1", "seed", "from 0"),
        ("+new=1", "new", "Keys cannot be added"),
        ("~seed", "seed", "Keys cannot be added"),
        ("method=[", "command line", "key=value"),
        ("model=minilm", "model", "decoder model"),
    ],
)
def test_problem_names_key_and_accepted_values(override: str, key: str, words: str) -> None:
    found = problems(*override.split())
    assert key in found
    assert words in found[key]


def test_all_problems_are_reported_at_once() -> None:
    found = problems("method.rank=abc", "method.alpha=-1", "train.lr=0", "tran.lr=1", "task=nothing", "seeds.data=-2")
    assert found.keys() == {"method.rank", "method.alpha", "train.lr", "tran.lr", "task", "seeds.data"}


def test_command_line_refuses_without_importing_torch() -> None:
    code = (
        "import sys; from sdsbench.__main__ import main; code = main(['model=micro', 'method.rank=9999']);"
        "assert 'torch' not in sys.modules; sys.exit(code)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 2, done.stderr
    assert "method.rank=9999" in done.stderr
    assert "Traceback" not in done.stderr


NOT_BEFORE_FIRST_STEP = (
    "IPython", "datasets", "evaluate", "gguf", "lm_eval", "math_verify", "matplotlib", "nltk", "onnx", "pandas", "peft",
    "pyarrow", "rouge_score", "sacrebleu", "scipy.stats", "sdsbench.results.report", "sdsbench.results.statistics",
    "sdsbench.studies.comparison", "sdsbench.sweeps", "sklearn", "statsmodels", "submitit", "torchao", "torchvision",
    "transformers.trainer", "wandb",
)  # fmt: skip
"""Packages that a run on embedded data needs after its first step or never; torch and transformers themselves import
scipy.optimize, sympy and accelerate."""


def test_run_imports_no_unneeded_package_before_its_first_step(tmp_path: Path) -> None:
    code = f"""
import gc, sys
from sdsbench.__main__ import main
from sdsbench.core import progress
words = [*{MICRO!r}, "data.source=embedded", "eval.untrained=false", "eval.limit=2", "output_root={tmp_path}"]
class Stepped(BaseException):
    pass
def stepped(self, count, text=""):
    imported = [name for name in {NOT_BEFORE_FIRST_STEP!r} if name in sys.modules]
    raise Stepped(imported, gc.get_freeze_count() > 0, gc.isenabled())
progress.Progress.advance = stepped
try:
    main(words)
except Stepped as stopped:
    assert stopped.args == ([], True, True), stopped.args
else:
    raise AssertionError("no step was made")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_command_line_overrides_the_protocol_and_the_protocol_the_defaults() -> None:
    assert compose_run([*MICRO]).train.max_steps == 200
    assert compose_run([*MICRO, "train.max_steps=7", "method.rank=3"]).train.max_steps == 7
    assert compose_run([*MICRO, "train.lr=0.5"]).train.lr == 0.5


def test_run_id_depends_only_on_keys_that_decide_numbers() -> None:
    base = run_id(compose_run(MICRO))
    for same in (["output_root=elsewhere"], ["threads=1"], ["force=true"], ["device=cpu"], ["tracker=wandb"]):
        assert run_id(compose_run([*MICRO, *same])) == base
    for other in ("seed=1", "train.lr=0.1", "method=lora", "method.rank=4", "eval.limit=3", "dtype=float32"):
        assert run_id(compose_run([*MICRO, other])) != base


def test_seeds_follow_seed_unless_set_apart() -> None:
    config = compose_run([*MICRO, "seed=7", "seeds.init=1"])
    assert (config.seeds.data, config.seeds.init, config.seeds.dropout) == (7, 1, 7)


@pytest.mark.parametrize("choice", options("model"))
def test_every_model_composes(choice: str, tmp_path) -> None:
    (tmp_path / "config.json").write_text((conf_folder().parent / "sdsbench/synthetic/micro/config.json").read_text())
    tasks = {"encoder": "glue/rte", "vision": "vtab/dtd", "decoder": "gsm8k"}
    other = "vision" if choice.startswith(("vit", "dino")) else "decoder"
    family = {"minilm": "encoder", "roberta_large": "encoder"}.get(choice, other)
    places = {"local": [f"model.location={tmp_path}"], "hub": ["model.location=o/n", "model.revision=c"]}
    extra = places.get(choice, [])
    config = compose_run([f"model={choice}", f"task={tasks[family]}", *extra])
    assert config.model.family == family


def test_configuration_folder_of_the_user_is_searched(tmp_path) -> None:
    (tmp_path / "method").mkdir()
    (tmp_path / "method" / "mine.yaml").write_text((conf_folder() / "method" / "lora.yaml").read_text())
    assert compose_run([*MICRO, "method=mine"], [str(tmp_path)]).method.name == "lora"


def test_flat_keys_reach_every_leaf() -> None:
    from hydra import compose, initialize_config_dir

    with initialize_config_dir(str(conf_folder()), version_base="1.3"):
        keys = flat_keys(compose("config"))
    assert {"train.lr", "method.rank", "data.root", "seeds.init", "seed"} <= set(keys)


@pytest.mark.parametrize("before", ["", "import sdsbench.tasks.math, sdsbench.tasks.commonsense; "])
def test_training_set_of_another_task_is_known_without_importing_it(before: str) -> None:
    """The module of task=math registers hendrycks_math; task=gsm8k alone does not import that module."""
    code = (
        f"{before}from sdsbench.runs.configuration.compose import compose_run;"
        "compose_run(['model=micro', 'data.source=embedded', 'task=gsm8k', 'task.train_set=hendrycks_math'])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_stand_in_data_is_described_wherever_it_is_named(capsys) -> None:
    from sdsbench.cli.show import command
    from sdsbench.runs.banner import announcement

    words = [*MICRO, "task.train_set=metamath_style_derived"]
    command.main(words, standalone_mode=False)
    assert "metamath_style_derived   (GSM8K and MATH training rows" in capsys.readouterr().out
    assert "not MetaMathQA" in announcement(compose_run(words))
