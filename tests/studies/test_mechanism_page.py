"""docs/mechanism.md and docs/study.md: numbers in their sentences about micro equal those of the shipped records."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

import pandas as pd
import pytest
from scipy import stats

from sdsbench import load_runs, load_scores, load_steps
from sdsbench.results.tables import by_name
from sdsbench.results.tables.loaded_runs import load
from sdsbench.results.tables.reference_comparison import compare, frame

ROOT = Path(__file__).parents[2]


def part(page: str, start: str, end: str) -> str:
    """The text of a page from `start` to `end` with single spaces."""
    text = " ".join((ROOT / "docs" / page).read_text().split())
    return text[text.index(start) : text.index(end, text.index(start))]


SHORT = part("mechanism.md", "## In short", "## Theory bench")
DETAILS = part("mechanism.md", "### What it says", "### One real run")
RESULT = part("study.md", "### Mechanism", "## Deviations")


def bundle(optimizer: str) -> Path:
    return ROOT / f"results/study/mechanism_{optimizer}.zip"


@cache
def against_lora(optimizer: str) -> dict[str, pd.Series]:
    """Title of a variant -> score, difference to LoRA of rank 8 with interval (points, 0 to 100), and p-value."""
    compared = compare(by_name.built("compare", load([bundle(optimizer)])[0], {}), "lora", rank=8)
    titles = {row.name: row.title for row in compared.built.table.rows}
    rows = frame(compared)
    return {titles[row["row"]].removesuffix(", r 8"): row for _, row in rows.iterrows()}


KEPT = "SDS-LoRA, bases keep their singular values"
NEVER, EVERY = "SDS-LoRA, r 8, never refreshed", "SDS-LoRA, r 8, refreshed at every step"
RESET, FLAT = "LoRA with optimizer reset", "LoRA with flat spectrum"


def difference(optimizer: str, variant: str) -> str:
    return f"{against_lora(optimizer)[variant]['difference']:+.1f}"


def interval(optimizer: str, variant: str) -> str:
    row = against_lora(optimizer)[variant]
    return f"{row['difference']:+.1f} [{row['low']:.1f}, {row['high']:.1f}]"


def score(optimizer: str, variant: str) -> str:
    return f"{against_lora(optimizer)[variant]['score']:.1f}"


def test_scores_in_the_short_table_equal_the_records() -> None:
    lines = {line.split(" | ")[0]: line for line in re.split(r"\| \|", SHORT)}
    (above,) = [line for name, line in lines.items() if "so SDS-LoRA scores above LoRA" in name]
    assert interval("sgd", "SDS-LoRA") in above and interval("adamw", "SDS-LoRA") in above
    assert f"p = {against_lora('adamw')['SDS-LoRA']['p_holm']:.2f} among ten tests" in above
    for text, variant in (("projectors are why", KEPT), ("refreshes are why", NEVER)):
        (line,) = [line for name, line in lines.items() if text in name]
        for optimizer in ("sgd", "adamw"):
            assert f"{score(optimizer, 'SDS-LoRA')} against {score(optimizer, variant)}" in line


def test_scores_in_the_text_equal_the_records() -> None:
    sgd_text, adamw_text = DETAILS.split("**Under AdamW it does not decide.**")
    assert f"({interval('sgd', KEPT)} against {difference('sgd', 'SDS-LoRA')})" in sgd_text
    for variant in (NEVER, EVERY, FLAT, RESET, "LoRA, r 16", "rsLoRA"):
        assert f"({difference('sgd', variant)})" in sgd_text, variant
    holm = {variant: f"p = {row['p_holm']:.3f}".rstrip("0") for variant, row in against_lora("adamw").items()}
    assert f"({difference('adamw', EVERY)}, {holm[EVERY]})" in adamw_text
    for variant in ("SDS-LoRA", RESET, "LoRA, r 16", "rsLoRA"):
        assert difference("adamw", variant) in adamw_text, variant
    for variant in ("SDS-LoRA", KEPT, NEVER):
        assert interval("sgd", variant) in RESULT, variant
    for variant in (FLAT, RESET):
        assert f"({difference('sgd', variant)})" in RESULT, variant
    assert interval("adamw", "SDS-LoRA") in RESULT
    for variant in (RESET, "LoRA, r 16", "rsLoRA", KEPT, NEVER):
        assert difference("adamw", variant) in RESULT, variant


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_gradient_ranks_in_the_short_table_equal_the_probes(optimizer: str) -> None:
    """Means over probes: SDS-LoRA as published minus LoRA of rank 8, with the interval of scipy's Welch test."""
    runs = load_runs(bundle(optimizer))
    probes = load_steps(bundle(optimizer), "probe").groupby("run_id").mean(numeric_only=True)
    published = (runs["config.method.variant"] == "sds") & (runs["config.method.refresh"] == "author")
    ours = runs[(runs["method"] == "sds_lora") & published]["run_id"]
    lora = runs[(runs["method"] == "lora") & (runs["rank"] == 8)]["run_id"]
    column = 2 if optimizer == "sgd" else 3
    (line,) = re.findall(r"\| gradients of A and B have a higher effective rank[^|]*\|[^|]*\|[^|]*\|", SHORT)
    for factor in "AB":
        values = probes[f"gradient_{factor}_effective_rank"]
        found = stats.ttest_ind(
            values.reindex(ours).dropna(), values.reindex(lora).dropna(), equal_var=False
        ).confidence_interval()
        middle = (found.low + found.high) / 2
        assert f"{middle:+.3g} [{found.low:.3g}, {found.high:.3g}]" in line.split("|")[column], factor


def test_probe_values_in_the_text_equal_the_summary() -> None:
    """`sdsbench figures` made the summary from the complete runs; the bundles do not hold values per layer."""
    means = pd.read_csv(ROOT / "results/mechanism/summary.csv").set_index(["optimizer", "line", "measure"])["mean"]

    def mean(optimizer: str, line: str, measure: str, digits: int) -> str:
        return f"{means[optimizer, line, measure]:.{digits}f}"

    def pair(optimizer: str, measure: str, digits: int) -> str:
        return " against ".join(mean(optimizer, line, measure, digits) for line in ("SDS-LoRA, r 8", "LoRA, r 8"))

    assert f"holds: {pair('sgd', 'alignment', 2)} | holds: {pair('adamw', 'alignment', 2)}" in SHORT
    step = pair("sgd", "actual_alignment", 2), pair("adamw", "actual_alignment", 3)
    assert f"holds: {step[0]} | holds, little: {step[1]}" in SHORT
    weakest = [mean(optimizer, "LoRA, r 8", "weakest_gain", 2) for optimizer in ("adamw", "sgd")]
    assert f"LoRA passes {weakest[0]} (AdamW) and {weakest[1]} (SGD)" in DETAILS
    kept = [mean(optimizer, f"{KEPT}, r 8", "weakest_gain", 2) for optimizer in ("adamw", "sgd")]
    assert f"it is {kept[0]} and {kept[1]}" in DETAILS
    for line in ("SDS-LoRA, r 8", "LoRA-Pro, r 8", "Preconditioned LoRA, r 8"):
        assert {mean(optimizer, line, "weakest_gain", 1) for optimizer in ("adamw", "sgd")} == {"1.0"}
    pro = [mean(optimizer, "LoRA-Pro, r 8", "alignment", 2) for optimizer in ("adamw", "sgd")]
    step_of_pro = mean("adamw", "LoRA-Pro, r 8", "actual_alignment", 2)
    assert f"({pro[0]} and {pro[1]}) and its real step under AdamW ({step_of_pro})" in DETAILS


def test_clipping_control_in_the_text_equals_its_records() -> None:
    """Best mean over the tuning seeds on validation rows, with gradients clipped after and before the method."""

    def best(path: Path, optimizer: str, method: str, rank: int | None = None) -> str:
        runs, scores = load_runs(path), load_scores(path)
        value = scores[scores["headline"] & (scores["stage"] == "validation")].set_index("run_id")["value"]
        chosen = runs[(runs["method"] == method) & (runs["config.train.optimizer"] == optimizer)]
        chosen = chosen[chosen["config.eval.split"] == "validation"]
        chosen = chosen[chosen["rank"] == rank] if rank else chosen
        if method == "sds_lora":
            published = (chosen["config.method.variant"] == "sds") & (chosen["config.method.refresh"] == "author")
            chosen = chosen[published]
        return f"{100 * value.reindex(chosen['run_id']).groupby(chosen['lr'].to_numpy()).mean().max():.1f}"

    def both(optimizer: str, method: str) -> tuple[str, str]:
        control = ROOT / "results/mechanism/clip.zip"
        return best(control, optimizer, method), best(bundle(optimizer), optimizer, method)

    pro, preconditioned = both("sgd", "lora_pro"), both("sgd", "preconditioned_lora")
    assert f"under SGD {pro[0]} for LoRA-Pro, where the default gives {pro[1]}" in DETAILS
    assert f"and {preconditioned[0]} for preconditioned LoRA, where it gives {preconditioned[1]}" in DETAILS
    assert f"SDS-LoRA has {best(bundle('sgd'), 'sgd', 'sds_lora')} there" in DETAILS
    pro, preconditioned = both("adamw", "lora_pro"), both("adamw", "preconditioned_lora")
    assert f"Under AdamW it gives {pro[0]} ({pro[1]}) and {preconditioned[0]} ({preconditioned[1]})" in DETAILS
    lora = best(bundle("adamw"), "adamw", "lora", rank=8)
    assert f"and LoRA has {lora}" in DETAILS


def test_smollm2_run_in_the_text_equals_its_records() -> None:
    """The text gives means over probes after the first, each of which is a mean over layers."""
    path = ROOT / "results/mechanism/smollm2.zip"
    runs = load_runs(path).set_index("method")
    probes = load_steps(path, "probe")
    means = probes[probes["step"] > 1].groupby("run_id").mean(numeric_only=True)
    ours, lora = (means.loc[runs.loc[method, "run_id"]] for method in ("sds_lora", "lora"))
    assert f"alignment {ours['alignment']:.2f} against LoRA's {lora['alignment']:.2f}" in DETAILS
    rank = "equivalent_effective_rank"
    assert f"its effective rank {ours[rank]:.1f} against {lora[rank]:.1f}" in DETAILS
    rank = "gradient_A_effective_rank"
    assert f"gradient of A {ours[rank]:.1f} against {lora[rank]:.1f}" in DETAILS
    assert f"real step {ours['actual_alignment']:.2f} against {lora['actual_alignment']:.2f}" in DETAILS
    losses = runs["losses.tail_mean"]
    assert f"is {losses['sds_lora']:.2f} against {losses['lora']:.2f}" in DETAILS
