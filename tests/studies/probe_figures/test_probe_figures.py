"""Figures from probes: which runs they draw, as which lines, with which numbers."""

from __future__ import annotations

import csv
import io
import json
import shutil
from pathlib import Path

import pytest
import zstandard

from sdsbench.__main__ import main
from sdsbench.core.errors import Refused, Unavailable
from sdsbench.core.hashing import sha256_of
from sdsbench.core.run_folder import read_record, write_record
from sdsbench.results.figure_style import ENDINGS, save
from sdsbench.results.figures import FIGURES, draw, figure_of
from sdsbench.results.tables.loaded_runs import load as load_runs
from sdsbench.runs.configuration.compose import compose_run
from sdsbench.runs.execute import execute
from sdsbench.studies.probe_figures.geometry import _median_over_layers
from sdsbench.studies.probe_figures.numbers import summary_csv
from sdsbench.studies.probe_figures.probed_runs import ProbedRuns, depth_of, kind_of, probed_runs
from tests.tools import QUIET

OF_PROBES = {name for name in FIGURES if figure_of(name).function.startswith("sdsbench.studies.probe_figures.")}


def load(*folders: Path) -> ProbedRuns:
    return probed_runs(load_runs(folders)[0])


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs of LoRA at two rates and of SDS-LoRA, two steps each, and one run of rsLoRA without probes."""
    folder = tmp_path_factory.mktemp("runs")
    common = [
        "model=micro", "data.source=embedded", "train.max_steps=2", "train.batch_size=2", "train.warmup_ratio=0",
        "eval.limit=1", "eval.untrained=false", "threads=1", "probe.every=2", "probe.rows=2", f"output_root={folder}",
    ]  # fmt: skip
    for more in (
        ["method=lora", "train.lr=1e-2"],
        ["method=lora", "train.lr=1e-7"],
        ["method=sds_lora", "method.warmup_steps=1", "method.guard=0", "method.refresh=every"],
    ):
        execute(compose_run([*common, *more]), QUIET)
    execute(compose_run([*common, "method=rslora", "probe.every=null"]), QUIET)
    return folder


def test_lines_best_rate_and_runs_without_probes(runs: Path) -> None:
    data = load(runs)
    assert data.optimizers == ["adamw"]
    assert data.lines("adamw") == [("LoRA, r 8", "lora"), ("SDS-LoRA, r 8", "sds_lora")]
    assert data.runs.set_index("line").loc["LoRA, r 8", "lr"] == 1e-2
    assert set(data.probes["step"]) == {1, 2} and len(data.probes) == 2 * 2 * 35


def test_medians_are_those_of_the_stored_rows(runs: Path) -> None:
    data = load(runs)
    run_id = data.of("adamw", "SDS-LoRA, r 8")[0]
    rows = data.probes[(data.probes["run_id"] == run_id) & (data.probes["step"] == 2)]
    assert _median_over_layers(data, [run_id], "alignment").loc[2, run_id] == pytest.approx(rows["alignment"].median())
    assert _median_over_layers(data, [run_id], "no_such_measure").empty


def test_summary_has_every_line(runs: Path) -> None:
    rows = list(csv.DictReader(io.StringIO(summary_csv(load(runs)))))
    assert {row["line"] for row in rows} == {"LoRA, r 8", "SDS-LoRA, r 8"}
    ranks = {row["line"]: float(row["mean"]) for row in rows if row["measure"] == "equivalent_effective_rank"}
    assert ranks["SDS-LoRA, r 8"] > ranks["LoRA, r 8"], "the projectors keep more directions of the gradient"


def test_figures_command_writes_every_figure_reproducibly(runs: Path, tmp_path: Path) -> None:
    assert main(["figures", "--runs", str(runs), "--out", str(tmp_path)]) == 0
    assert {path.stem for path in tmp_path.glob("*.png")} == {path.stem for path in tmp_path.glob("*.pdf")} == OF_PROBES
    save(draw("anisotropy", load_runs([runs])[0]), tmp_path / "again", figure_of("anisotropy").caption)
    for ending in ENDINGS:
        assert (tmp_path / f"again.{ending}").read_bytes() == (tmp_path / f"anisotropy.{ending}").read_bytes()
    page = (tmp_path / "index.html").read_text()
    assert page.count("<svg ") == page.count("aria-label=") == len(OF_PROBES) == 11 and "SDS-LoRA" in page


def test_folder_without_probes_is_refused_with_the_key_to_set(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match=r"probe\.every=N"):
        load(tmp_path)


def test_a_probe_that_cannot_be_read_hides_no_other_and_a_name_is_no_formula(
    runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = Path(shutil.copytree(runs, tmp_path / "runs"))
    data = load(place)
    (probe, *_) = sorted((place / data.of("adamw", "SDS-LoRA, r 8")[0] / "probes").iterdir())
    probe.write_bytes(zstandard.ZstdCompressor().compress(b'{"layer": 7}\n'))
    path = place / data.of("adamw", "LoRA, r 8")[0] / "record.json"
    tree = json.loads(path.read_text()) | {"method": "$\\foo{$ <b> \u202e", "checksum": ""}
    path.write_text(json.dumps(tree | {"checksum": sha256_of(tree)}))
    assert main(["figures", "alignment", "--runs", str(place), "--out", str(tmp_path / "out")]) == 0
    error = capsys.readouterr().err
    assert error.count(str(probe)) == 1 and "layer: accepted" in error and error.count("\n") == 1
    page = (tmp_path / "out" / "index.html").read_text()
    assert "$\\foo{$ &lt;b&gt; \\u202e" in page and "SDS-LoRA, r 8" in page and "\u202e" not in page


def test_kind_and_depth_follow_from_a_layers_name() -> None:
    name = "model.layers.3.self_attn.q_proj"
    assert (kind_of(name), depth_of(name)) == ("q_proj", 3) and depth_of("classifier") == -1


def add_copy(place: Path, run_id: str, seed: int, **config: dict[str, object]) -> None:
    """A copy of a run under an id of its own, with another seed and some keys of its configuration changed."""
    record = read_record(place / run_id / "record.json").model_copy(deep=True)
    record.run_id, record.seed = f"{seed:016d}", seed
    for section, values in config.items():
        record.config[section] |= values
    shutil.copytree(place / run_id, place / record.run_id)
    write_record(place / record.run_id, record)


def test_runs_of_tuning_are_not_averaged_with_those_that_were_tested(runs: Path, tmp_path: Path) -> None:
    place = Path(shutil.copytree(runs, tmp_path / "runs"))
    (tested,) = load(place).of("adamw", "LoRA, r 8")
    add_copy(place, tested, 100, eval={"split": "validation"})
    assert load(place).of("adamw", "LoRA, r 8") == [tested]
    assert load(place / f"{100:016d}").of("adamw", "LoRA, r 8") == [f"{100:016d}"], "alone they are drawn"


def test_methods_on_other_layers_share_no_figure(runs: Path, tmp_path: Path) -> None:
    place = Path(shutil.copytree(runs, tmp_path / "runs"))
    (tested,) = load(place).of("adamw", "LoRA, r 8")
    add_copy(place, tested, 1, method={"targets": ["q_proj"]})
    with pytest.raises(Refused, match=r"must not share a figure: method\.targets: .*q_proj in 0000000000000001"):
        load(place)


def test_runs_of_two_settings_in_one_figure_are_refused(runs: Path, tmp_path: Path) -> None:
    """The error names the difference, here the number of steps."""
    longer = [
        "model=micro", "data.source=embedded", "train.max_steps=1", "train.batch_size=2", "train.warmup_ratio=0",
        "eval.limit=1", "eval.untrained=false", "threads=1", "probe.every=2", "probe.rows=2", f"output_root={tmp_path}",
    ]  # fmt: skip
    execute(compose_run([*longer, "method=lora"]), QUIET)
    with pytest.raises(Refused, match=r"must not share a figure: .*train\.max_steps: 1 in [0-9a-f]+; 2 in"):
        load(runs, tmp_path)
