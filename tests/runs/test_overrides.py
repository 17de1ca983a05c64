"""Command-line overrides: one composition where all are valid, `++`, the user's own groups, advice on quoting."""

from __future__ import annotations

from pathlib import Path

import pytest

from sdsbench.core.errors import ConfigError
from sdsbench.runs.configuration import compose as module
from sdsbench.runs.configuration.compose import compose_run
from sdsbench.runs.configuration.overrides import search_path, with_search_path
from sdsbench.sweeps import placing
from sdsbench.sweeps.blocks import define
from sdsbench.sweeps.expand import Composer, product
from sdsbench.sweeps.slurm_config import configure

SIXTEEN = [
    "model=micro", "method=lora", "task=gsm8k", "data.source=embedded", "train.max_steps=3", "eval.limit=2",
    "threads=1", "seed=1", "method.rank=4", "train.lr=0.1", "train.batch_size=4", "train.schedule=linear",
    "eval.batch_size=3", "data.train_limit=32", "device=cpu", "train.save=none",
]  # fmt: skip


@pytest.fixture
def compositions(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """A list that grows by one element with each composition by Hydra."""
    made: list[int] = []
    real = module.compose

    def counted(*arguments: object, **more: object) -> object:
        made.append(1)
        return real(*arguments, **more)

    monkeypatch.setattr(module, "compose", counted)
    return made


def test_sixteen_overrides_are_composed_once(compositions: list[int]) -> None:
    config = compose_run(SIXTEEN)
    assert len(compositions) == 1
    assert (config.train.lr, config.eval.batch_size, config.train.save, config.seeds.data) == (0.1, 3, "none", 1)


def test_wrong_values_are_found_in_one_composition(compositions: list[int]) -> None:
    with pytest.raises(ConfigError) as caught:
        compose_run([*SIXTEEN, "method.alpha=-1", "train.clip_norm=x"])
    assert {problem.key for problem in caught.value.problems} == {"method.alpha", "train.clip_norm"}
    assert len(compositions) == 1


def test_overrides_are_tried_one_by_one_only_where_hydra_rejects_them(compositions: list[int]) -> None:
    with pytest.raises(ConfigError) as caught:
        compose_run([*SIXTEEN, "method.rnak=1", "seed=0,1", "eval=3"])
    assert {problem.key for problem in caught.value.problems} == {"method.rnak", "seed", "eval"}
    assert len(compositions) > 10


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["++train.lrr=1"], "Did you mean 'train.lr'?"),
        (["train.learning_rate=1"], "Did you mean 'train.lr'?"),
        (["train.wd=1"], "Did you mean 'train.weight_decay'?"),
        (["=8"], "a key of conf/ (see `sdsbench show`).\n"),
        (["++method=lroa"], "Did you mean 'lora'?"),
        (["+train.lr=1"], "It exists: train.lr=VALUE sets it."),
        (["~train.lr"], "Keys cannot be added or deleted."),
        (["data.root=a(b"], "'data.root=\"a(b\"'"),
        (["data.root=größe 1"], "'data.root=\"größe 1\"'"),
        (["method.targets=[a=b,c]"], '\'method.targets=["a=b","c"]\''),
        (["hydra.job.chdir=true"], "Keys of Hydra itself act with -m alone."),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_wrong_override_is_refused_with_advice(words: list[str], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        compose_run(["model=micro", *words])
    assert message in f"{caught.value}\n"


def test_value_quoted_as_advised_is_accepted() -> None:
    assert compose_run(["model=micro", "data.source=local", 'data.root="größe (1)"']).data.root == "größe (1)"


def test_plus_plus_overrides_work_in_every_command() -> None:
    assert compose_run(["++model=micro", "++train.lr=0.25", "++method=lora"]).train.lr == 0.25
    assert placing.parse(["++threads=3"]) == {"threads": 3}
    assert configure(["++slurm=cpu", "++slurm.time=00:10:00"]).time == "00:10:00"
    (block,) = define(["++method=lora,dora", "++seed=0,1"]).blocks
    assert block == {"method": ["lora", "dora"], "seed": ["0", "1"]}


@pytest.fixture
def own(tmp_path: Path) -> str:
    """A configuration folder of the user with two experiments."""
    folder = tmp_path / 'a "strange", back\\slashed folder'
    (folder / "experiment").mkdir(parents=True)
    for name, rate in (("slow", 0.125), ("fast", 0.5)):
        text = (
            f"# @package _global_\ndefaults: [override /model: micro, override /method: lora]\ntrain: {{lr: {rate}}}\n"
        )
        (folder / "experiment" / f"{name}.yaml").write_text(text)
    return str(folder)


def test_experiment_of_the_user_is_composed(own: str) -> None:
    config = compose_run(["+experiment=slow", "seed=4"], [own])
    assert (config.train.lr, config.method.name, config.model.name, config.seed) == (0.125, "lora", "micro", 4)
    assert compose_run(["+experiment=slow", *search_path([own])]) == compose_run(["+experiment=slow"], [own])
    for word, message in (
        ("experiment=slow", "+experiment=slow"), ("+experiment=slwo", "'slow'"), ("+experimant=slow", "Keys cannot")
    ):  # fmt: skip
        with pytest.raises(ConfigError) as caught:
            compose_run([word], [own])
        assert message in str(caught.value)


def test_experiments_of_the_user_can_be_an_axis_of_a_plan(own: str) -> None:
    sweep = define(["+experiment=slow,fast", "seed=0,1", "data.source=embedded"], [own])
    composer = Composer(sweep.placing, [own])
    points = [single for point in product(sweep.blocks[0]) for single in composer.points(point)]
    configs = [composer.configuration(point) for point in points]
    composer.raise_problems()
    assert [(c.train.lr, c.seed) for c in configs if c] == [(0.125, 0), (0.125, 1), (0.5, 0), (0.5, 1)]
    assert [c for c in define(["+experiment=glob(s*)"], [own]).blocks[0].values()] == [["slow"]]
    with pytest.raises(ConfigError, match="Keys cannot be added"):
        define(["+experiment=slow", "seed=0,1"])


def test_folders_of_hydra_searchpath_follow_those_of_the_options(tmp_path: Path) -> None:
    words = ["seed=1", f"hydra.searchpath=[file://{tmp_path}]"]
    assert with_search_path(words, ["own"]) == (["seed=1"], ["own", str(tmp_path)])
    with pytest.raises(ConfigError, match="folders that exist"):
        with_search_path(["hydra.searchpath=[/nowhere]"], [])
