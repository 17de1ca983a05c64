"""Probes in runs of the micro model: they do not change training, and the stored numbers are correct."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from sdsbench.core import samples
from sdsbench.core import step_log as metrics
from sdsbench.core.errors import ConfigError
from sdsbench.runs.configuration.compose import compose_run
from sdsbench.runs.configuration.identity import run_id
from sdsbench.runs.execute import execute
from sdsbench.runs.run_context import RunContext
from sdsbench.training.probes.observer import means, path_of
from tests.tools import QUIET

METHODS = ("sds_lora", "lora_pro", "dora", "full_ft")


def overrides(folder: Path, method: str, *more: str) -> list[str]:
    return [
        "model=micro", f"method={method}", "data.source=embedded", "train.max_steps=4", "train.batch_size=2",
        "train.warmup_ratio=0", "eval.limit=1", "eval.untrained=false", "threads=1", f"output_root={folder}", *more,
    ]  # fmt: skip


def run(folder: Path, method: str, *more: str) -> tuple[Path, list[dict]]:
    config = compose_run(overrides(folder, method, *more))
    execute(config, QUIET)
    found = folder / run_id(config)
    return found, metrics.read(found / "metrics.jsonl")


def losses_and_norms(lines: list[dict]) -> list[tuple[float, float]]:
    return [(line["loss"], line["grad_norm"]) for line in lines if line["kind"] == "train"]


@pytest.mark.parametrize("method", METHODS)
def test_losses_and_weights_are_bitwise_equal_with_probes(tmp_path: Path, method: str) -> None:
    warm = ["method.warmup_steps=2", "method.dropout=0.1"] if method == "sds_lora" else []
    plain_folder, plain = run(tmp_path / "plain", method, "train.save=all", *warm)
    probed_folder, probed = run(tmp_path / "probed", method, "train.save=all", "probe.every=2", "probe.rows=2", *warm)
    assert plain_folder.name == probed_folder.name, "probes are not part of the run id"
    assert losses_and_norms(plain) == losses_and_norms(probed)
    for path in sorted((plain_folder / "adapter").rglob("*.safetensors")):
        assert path.read_bytes() == (probed_folder / "adapter" / path.name).read_bytes()
    probe_lines = [line for line in probed if line["kind"] == "probe"]
    assert [line["step"] for line in probe_lines] == [1, 2, 4]
    assert all(0 <= line["alignment"] <= 1 + 1e-9 and line["seconds"] > 0 for line in probe_lines)
    assert not [line for line in plain if line["kind"] == "probe"] and not (plain_folder / "probes").exists()
    rows = samples.read_probes(path_of(probed_folder, 4))
    assert len(rows) == 35 and len({row["layer"] for row in rows}) == 35
    assert probe_lines[-1]["alignment"] == pytest.approx(means(rows)["alignment"], rel=1e-6)
    assert all(row["actual_norm"] > 0 for row in rows)
    if method == "full_ft":
        assert all(row["alignment"] == pytest.approx(1) for row in rows)


def test_stored_numbers_equal_a_dense_computation(tmp_path: Path) -> None:
    """At step 1 LoRA's B is 0, so E = s^2 G A^T A; G is computed by plain autograd on a merged model."""
    from sdsbench.data.held_back import load_training
    from sdsbench.methods.attach import attach, merged, target_layers
    from sdsbench.methods.base import build
    from sdsbench.models.load import load
    from sdsbench.runs.families import family_of
    from sdsbench.tasks import base as tasks

    folder, _ = run(tmp_path, "lora", "probe.every=4", "probe.rows=3")
    config = compose_run(overrides(tmp_path, "lora"))
    loaded = load(config.model, torch.float32, None)
    rows = load_training(config.task.train_set, config.data)
    family = family_of(tasks.build(config.task), loaded, config)
    examples = family.encode_all(rows)[:3]
    method = build(config.method)
    layers = attach(loaded.model, method, 0)
    plain = merged(loaded.model, torch.float64)
    linears = target_layers(plain, ["all-linear"])
    for linear in linears.values():
        linear.weight.requires_grad_(True)
    loss = family.loss(plain, examples, torch.device("cpu")) / sum(example.targets for example in examples)
    loss.backward()
    for row in samples.read_probes(path_of(folder, 1)):
        g = linears[row["layer"]].weight.grad.double()
        a = layers[row["layer"]].A.detach().double()
        equivalent = method.scale() ** 2 * g @ a.T @ a
        sigma = torch.linalg.svdvals(equivalent)
        share = sigma / sigma.sum()
        assert row["gradient_norm"] == pytest.approx(float(g.norm()), rel=1e-4)
        assert row["alignment"] == pytest.approx(float((equivalent * g).sum() / equivalent.norm() / g.norm()), rel=1e-4)
        assert row["equivalent_effective_rank"] == pytest.approx(float(torch.special.entr(share).sum().exp()), rel=1e-3)
        assert row["gradient_values"][:5] == pytest.approx(torch.linalg.svdvals(g)[:5].tolist(), rel=1e-4)
        assert row["up_overlap"] is None and row["condition_B"] is None and row["singular_gains"] == []


OWN_MOMENTS = {
    "altlora": ["method.second_moment=true", "train.lr=1e-4"],
    "lora_pro": ["method.mode=full", "train.lr=1e-6", "method.damping=1", "method.damping_form=absolute"],
    "preconditioned_lora": ["method.form=authors", "train.lr=1e-6"],
}
"""With rates, and for LoRA-Pro a damping, at which a step is so short that terms of second order vanish."""


@pytest.mark.parametrize("method", OWN_MOMENTS)
def test_a_plain_step_along_the_methods_direction_is_its_first_order_change(tmp_path: Path, method: str) -> None:
    """The probe's rows are the rows of every step, so its G is the step's. Methods with moments of their own make plain
    steps: the change of W is -lr J d, with d from the moments as they were before the step."""
    same_rows = ["data.train_limit=2", "probe.every=4", "probe.rows=2", "train.clip_norm=null", "dtype=float32"]
    folder, lines = run(tmp_path, method, *OWN_MOMENTS[method], *same_rows, "train.schedule=constant")
    rows, (lr,) = samples.read_probes(path_of(folder, 4)), {line["lr"] for line in lines if line["kind"] == "train"}
    for row in rows:
        assert row["actual_to_equivalent"] == pytest.approx(1, abs=1e-3), row["layer"]
        assert row["actual_norm"] == pytest.approx(lr * row["gain"] * row["gradient_norm"], rel=1e-3), row["layer"]


def test_finished_run_without_probes_logs_how_to_get_them(tmp_path: Path) -> None:
    run(tmp_path, "lora")
    logged: list[str] = []
    execute(compose_run(overrides(tmp_path, "lora", "probe.every=2")), RunContext(log=logged.append))
    assert "no probes" in logged[0] and "force=true" in logged[0]


def test_invalid_probe_keys_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"probe\.every=0.*\n.*probe\.rows=0"):
        compose_run(["model=micro", "probe.every=0", "probe.rows=0"])


def test_probe_rows_are_json_without_nan(tmp_path: Path) -> None:
    folder, lines = run(tmp_path, "lora_xs", "probe.every=4")
    json.dumps([*lines, *samples.read_probes(path_of(folder, 4))], allow_nan=False)
