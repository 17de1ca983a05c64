"""Claims against runs made by hand: each answer reached, contexts kept apart, numbers named."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest

from sdsbench.__main__ import main
from sdsbench.results.claims.claim import Claim, default_file, read
from sdsbench.results.claims.decide import decide, more_seeds, together
from sdsbench.results.claims.texts import markdown
from sdsbench.results.claims.verdict import Verdict, judge
from sdsbench.core.errors import DamagedFile, Unavailable
from sdsbench.core.record import Parameters, Seconds
from sdsbench.results.tables.runs import load
from tests.results.tables.fixtures import make_record, make_samples, write_run

SAME = ["model", "task", "rank", "data_source"]


def claim(**changes: object) -> Claim:
    plain = {
        "id": "c",
        "paper": "p",
        "sentence": "SDS-LoRA scores above LoRA.",
        "test": "higher",
        "measure": "score",
        "ours": {"method": "sds_lora"},
        "theirs": {"method": "lora"},
        "same": SAME,
    }
    return Claim.model_validate({**plain, **changes})


def verdict(root: Path, tested: Claim) -> Verdict:
    return judge(tested, load(root)[0], root)


def write(root: Path, method: str, values: list[float], **options: object) -> None:
    for seed, value in enumerate(values):
        write_run(root, make_record(method, seed, {"gsm8k": value}, **options))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "test, low, high, margin, answer",
    [
        ("higher", 0.1, 2, 0, "reproduced"),
        ("higher", -2, -0.1, 0, "contradicted"),
        ("higher", -1, 0.4, 0.5, "contradicted"),
        ("higher", -1, 1, 0.5, "undecided"),
        ("not_lower", -0.4, 1, 0.5, "reproduced"),
        ("not_lower", -2, -0.6, 0.5, "contradicted"),
        ("not_lower", -0.6, 1, 0.5, "undecided"),
        ("within", -0.9, 0.9, 1, "reproduced"),
        ("within", 1.1, 2, 1, "contradicted"),
        ("within", 0.5, 2, 1, "undecided"),
        ("below", 1, 1.9, 2, "reproduced"),
        ("below", 2.1, 3, 2, "contradicted"),
        ("higher", math.nan, math.nan, 0, "undecided"),
    ],
)
def test_decide(test: str, low: float, high: float, margin: float, answer: str) -> None:
    assert decide(test, low, high, margin) == answer


def test_one_contradiction_is_enough_and_nothing_is_undecided() -> None:
    assert together(["reproduced", "contradicted"]) == "contradicted"
    assert together(["reproduced", "undecided"]) == "undecided"
    assert together([]) == "undecided"
    assert together(["reproduced"]) == "reproduced"


def test_seeds_still_needed() -> None:
    assert more_seeds("higher", 0.5, 1.0, 0.0, 3) == 34 - 3
    assert more_seeds("higher", 0.0, 1.0, 0.0, 3) is None
    assert more_seeds("within", 0.5, 1.0, 1.0, 4) == 34 - 4


@pytest.mark.parametrize(
    "ours, answer",
    [([0.60, 0.61, 0.62], "reproduced"), ([0.40, 0.41, 0.42], "contradicted"), ([0.50, 0.57, 0.51], "undecided")],
)
def test_answers_from_runs(tmp_path: Path, ours: list[float], answer: str) -> None:
    write(tmp_path, "lora", [0.50, 0.51, 0.53])
    write(tmp_path, "sds_lora", ours)
    result = verdict(tmp_path, claim())
    finding = result.findings[0]
    assert result.answer == finding.answer == answer
    assert finding.value == pytest.approx(100 * (np.mean(ours) - np.mean([0.50, 0.51, 0.53])))
    assert len(finding.runs) == 6 and finding.seeds == 3
    assert (finding.more_seeds is not None and finding.more_seeds > 0) == (answer == "undecided")


def test_contexts_and_settings_are_kept_apart(tmp_path: Path) -> None:
    for source, ours in (("embedded", [0.60, 0.61, 0.62]), ("local", [0.40, 0.41, 0.42])):
        write(tmp_path, "lora", [0.50, 0.51, 0.53], source=source)
        write(tmp_path, "sds_lora", ours, source=source)
    result = verdict(tmp_path, claim(setting={"data_source": ["local"]}))
    assert result.answer == "contradicted" and result.elsewhere == "reproduced"
    assert verdict(tmp_path, claim(setting={"model": ["llama3_8b"]})).answer == "undecided"


def test_answers_to_questions_are_used(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for method, skill in (("lora", 0.4), ("sds_lora", 0.7)):
        for seed in range(4):
            right = rng.random(200) < skill
            write_run(
                tmp_path, make_record(method, seed, {"gsm8k": float(right.mean())}), {"gsm8k": make_samples(right)}
            )
    finding = verdict(tmp_path, claim()).findings[0]
    assert finding.method.startswith("hierarchical") and finding.answer == "reproduced"
    assert 15 < finding.low < finding.value < finding.high < 45  # points, not fractions


def test_one_seed_decides_nothing(tmp_path: Path) -> None:
    write(tmp_path, "lora", [0.2])
    write(tmp_path, "sds_lora", [0.9])
    assert verdict(tmp_path, claim()).answer == "undecided"


def test_runs_of_two_codes_are_not_averaged(tmp_path: Path) -> None:
    write(tmp_path, "lora", [0.50, 0.51])
    write(tmp_path, "sds_lora", [0.6, 0.61])
    write_run(tmp_path, make_record("sds_lora", 2, {"gsm8k": 0.6}, code_hash="other"))
    finding = verdict(tmp_path, claim()).findings[0]
    assert finding.answer == "undecided" and "code.core" in finding.note


def test_fewer_parameters_are_part_of_the_claim(tmp_path: Path) -> None:
    few, many = (Parameters(trainable=n, adapter=n, total=10**9) for n in (100, 4000))
    write(tmp_path, "lora", [0.50, 0.51, 0.52], rank=32, parameters=many)
    write(tmp_path, "lora_sb", [0.52, 0.53, 0.54], rank=96, parameters=few)
    both = {"ours": {"method": "lora_sb"}, "same": ["model"], "test": "not_lower", "margin": 0.5}
    assert verdict(tmp_path, claim(**both, fewer_parameters=39)).answer == "reproduced"
    assert verdict(tmp_path, claim(**both, fewer_parameters=41)).answer == "contradicted"


def test_start_cost_probes_and_spread(tmp_path: Path) -> None:
    for seed in (0, 1, 2):
        record = make_record("lora_sb", seed, {"gsm8k": 0.5}, seconds=Seconds(init=1.0 + 0.01 * seed, train=100.0))
        write_run(tmp_path, record)
        for method, rank in (("lora", 2.0), ("sds_lora", 6.0)):
            steps = [
                {"kind": "probe", "step": step, "erank": rank + 0.1 * seed * (method == "lora")} for step in (1, 2)
            ]
            write_run(tmp_path, make_record(method, seed, {"gsm8k": 0.5}), steps=steps)
    cost = claim(test="below", measure="init_share", ours={"method": "lora_sb"}, theirs={}, margin=2.0)
    assert verdict(tmp_path, cost).answer == "reproduced"
    assert verdict(tmp_path, cost.model_copy(update={"margin": 0.5})).answer == "contradicted"
    ranks = verdict(tmp_path, claim(measure="probe.erank"))
    assert ranks.answer == "reproduced" and ranks.findings[0].value == pytest.approx(3.9)
    spread = claim(test="spread", margin=1.0, ours={"method": ["lora", "sds_lora"]}, theirs={})
    assert verdict(tmp_path, spread).answer == "reproduced"


def test_the_extremes_of_many_methods_pay_for_being_chosen(tmp_path: Path) -> None:
    pair = claim(test="spread", margin=1.0, ours={"method": ["lora", "sds_lora"]}, theirs={})
    write(tmp_path, "lora", [0.500, 0.510, 0.505, 0.490])
    write(tmp_path, "sds_lora", [0.530, 0.533, 0.548, 0.528])
    assert verdict(tmp_path, pair).answer == "contradicted"
    for method in ("rslora", "pissa", "dora", "lora_pro"):
        write(tmp_path, method, [0.515, 0.52, 0.522, 0.51])
    six = claim(test="spread", margin=1.0, ours={"method": ["lora", "sds_lora", "rslora", "pissa", "dora"]}, theirs={})
    finding = verdict(tmp_path, six).findings[0]
    assert finding.answer == "undecided" and "99.5 % interval" in finding.note


def test_claims_about_a_table(tmp_path: Path) -> None:
    (tmp_path / "slopes.csv").write_text("method,slope,lo,hi\nsds_lora,0.01,-0.02,0.03\nlora,-0.9,-1.0,-0.8\n")
    about = {"test": "file", "file": "slopes.csv", "columns": {"value": "slope", "low": "lo", "high": "hi"}}
    assert verdict(tmp_path, claim(**about, row={"method": "sds_lora"}, bounds=[-0.1, 0.1])).answer == "reproduced"
    assert verdict(tmp_path, claim(**about, row={"method": "lora"}, bounds=[-0.1, 0.1])).answer == "contradicted"
    below = claim(**about, row={"method": "lora"}, bounds=[None, -0.1])
    assert verdict(tmp_path, below).answer == "reproduced"
    assert "bounds unbounded to -0.1" in markdown([verdict(tmp_path, below)])
    assert verdict(tmp_path, claim(**{**about, "file": "none.csv"}, row={"method": "lora"})).findings == ()


def test_the_shipped_claims_are_valid() -> None:
    claims = read(default_file())
    assert len({c.id for c in claims}) == len(claims) >= 8


def test_bad_claim_files(tmp_path: Path) -> None:
    with pytest.raises(Unavailable):
        read(tmp_path / "none.yaml")
    (tmp_path / "bad.yaml").write_text("claims: [{id: x, paper: p, sentence: s, test: higher}]")
    with pytest.raises(DamagedFile, match="needs measure, ours, same, theirs"):
        read(tmp_path / "bad.yaml")


def test_the_verb(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path, "lora", [0.50, 0.51, 0.53])
    write(tmp_path, "sds_lora", [0.60, 0.61, 0.62])
    assert main(["verdict", "--runs", str(tmp_path)]) == 0
    text = capsys.readouterr().out
    assert "undecided (no runs)" in text and "elsewhere" in text
    assert main(["verdict", "sds_above_lora_gsm8k", "--runs", str(tmp_path), "--format", "json"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["id"] == "sds_above_lora_gsm8k"
    assert main(["verdict", "nonsense", "--runs", str(tmp_path)]) == 2
