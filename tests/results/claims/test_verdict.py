"""Claims judged on hand-made runs: every answer is reached, contexts are kept apart, and numbers are named."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from sdsbench.__main__ import main
from sdsbench.core.record import Parameters, Seconds
from sdsbench.results.claims.verdict_texts import markdown
from tests.results.claims.tools import make_claim, verdict_on, write_runs
from tests.results.tables.fixtures import make_record, make_samples, write_run


@pytest.mark.parametrize(
    "ours, answer",
    [([0.60, 0.61, 0.62], "reproduced"), ([0.40, 0.41, 0.42], "contradicted"), ([0.50, 0.57, 0.51], "undecided")],
)
def test_answer_and_needed_seeds_follow_from_the_runs(tmp_path: Path, ours: list[float], answer: str) -> None:
    write_runs(tmp_path, "lora", [0.50, 0.51, 0.53])
    write_runs(tmp_path, "sds_lora", ours)
    result = verdict_on(tmp_path, make_claim())
    finding = result.findings[0]
    assert result.answer == finding.answer == answer
    assert finding.comparison.difference == pytest.approx(100 * (np.mean(ours) - np.mean([0.50, 0.51, 0.53])))
    assert len(finding.runs) == 6 and finding.comparison.seeds == 3
    assert f"runs {', '.join(finding.runs[:3])} and 3 more\n" in markdown([result]), "the text names three of the runs"
    assert result.plain()["findings"][0]["runs"] == list(finding.runs), "the machine-readable form names all of them"
    assert (finding.needed.seeds is not None and finding.needed.seeds > 3) == (answer == "undecided")
    advice = f"about {(finding.needed.seeds or 0) - 3} more seeds a side would decide"
    assert (advice in markdown([result])) == (answer == "undecided")


def test_runs_outside_the_claims_setting_are_judged_apart(tmp_path: Path) -> None:
    for source, ours in (("embedded", [0.60, 0.61, 0.62]), ("local", [0.40, 0.41, 0.42])):
        write_runs(tmp_path, "lora", [0.50, 0.51, 0.53], source=source)
        write_runs(tmp_path, "sds_lora", ours, source=source)
    result = verdict_on(tmp_path, make_claim(setting={"data_source": ["local"]}))
    assert result.answer == "contradicted" and result.elsewhere == "reproduced"
    assert verdict_on(tmp_path, make_claim(setting={"model": ["llama3_8b"]})).answer == "undecided"


def test_test_uses_the_answers_to_single_questions(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for method, skill in (("lora", 0.4), ("sds_lora", 0.7)):
        for seed in range(4):
            right = rng.random(200) < skill
            write_run(
                tmp_path, make_record(method, seed, {"gsm8k": float(right.mean())}), {"gsm8k": make_samples(right)}
            )
    finding = verdict_on(tmp_path, make_claim()).findings[0]
    found = finding.comparison
    assert found.test.startswith("t over unpaired seeds and questions") and finding.answer == "reproduced"
    assert 15 < found.low < found.difference < found.high < 45  # points, not fractions


def test_more_questions_are_recommended_where_seeds_would_not_decide(tmp_path: Path) -> None:
    """A method's runs answer nearly alike, so more runs would add no information, but more questions would."""
    rng = np.random.default_rng(3)
    answers = {"lora": rng.random(60) < 0.5, "sds_lora": rng.random(60) < 0.55}
    for method, right in answers.items():
        for seed in range(3):
            once = right.copy()
            once[seed] = ~once[seed]
            write_run(
                tmp_path, make_record(method, seed, {"gsm8k": float(once.mean())}, n=60), {"gsm8k": make_samples(once)}
            )
    result = verdict_on(tmp_path, make_claim())
    needed = result.findings[0].needed
    assert result.answer == "undecided" and needed.seeds is None and needed.questions is not None
    assert f"more seeds would not decide: at least {needed.questions} questions are needed" in markdown([result])


def test_one_contradiction_by_chance_among_thirty_contexts_leaves_a_claim_undecided(tmp_path: Path) -> None:
    """One context alone contradicts at p = 0.02; among thirty contexts this is no contradiction."""
    rng = np.random.default_rng(1)
    write_runs(tmp_path, "lora", [0.52, 0.53, 0.54], model="m0")
    write_runs(tmp_path, "sds_lora", [0.50, 0.51, 0.49], model="m0")
    for number in range(1, 30):
        for method in ("lora", "sds_lora"):
            write_runs(tmp_path, method, (0.5 + rng.normal(0, 0.02, 3)).tolist(), model=f"m{number}")
    result = verdict_on(tmp_path, make_claim())
    assert "contradicted" in {finding.answer for finding in result.findings}
    assert result.answer == "undecided"
    assert result.pooled is not None and result.pooled.low < 0 < result.pooled.high
    text = markdown([result])
    assert "undecided together (paper's setting; 30 contexts;" in text and "pooled effect" in text


def test_losses_are_no_scores(tmp_path: Path) -> None:
    """Of a loss less is better: a larger one is neither a score above LoRA's nor the best end of a spread."""
    for method, loss in (("lora", 2.0), ("sds_lora", 3.0)):
        for seed in range(3):
            record = make_record(method, seed, {"gsm8k": 0.4 + 0.01 * seed + 0.1 * (method == "lora"), "text": loss})
            record.scores[1] = record.scores[1].model_copy(
                update={"unit": "number", "better": "lower", "value": loss + 0.01 * seed}
            )
            write_run(tmp_path, record)
    both = {"method": ["lora", "sds_lora"]}
    for claim in (make_claim(), make_claim(test="spread", margin=1.0, ours=both, theirs={})):
        assert [finding.context.split(": ")[-1] for finding in verdict_on(tmp_path, claim).findings] == ["gsm8k"]
    assert verdict_on(tmp_path, make_claim()).answer == "contradicted"
    assert verdict_on(tmp_path, make_claim(evaluation="text")).findings == ()


def test_difference_that_cannot_be_tested_says_why_and_gives_no_advice(tmp_path: Path) -> None:
    """Three seeds a side and two in common, where seeds are paired; and the same difference at every seed."""
    for method, first, value in (("lora", 0, 0.5), ("sds_lora", 1, 0.6)):
        for seed in range(first, first + 3):
            scores = {"glue/rte": value + 0.01 * seed**2}
            write_run(tmp_path / "few", make_record(method, seed, scores, task="glue/rte", family="encoder"))
    write_runs(tmp_path / "equal", "lora", [0.50, 0.50, 0.50])
    write_runs(tmp_path / "equal", "sds_lora", [0.60, 0.60, 0.60])
    for folder, reason in (("few", "fewer than 3 common seeds"), ("equal", "no variance between seeds")):
        result = verdict_on(tmp_path / folder, make_claim())
        (finding,) = result.findings
        assert result.answer == finding.answer == "undecided" and finding.untested == reason
        assert result.plain()["findings"][0]["untested"] == reason
        text = markdown([result])
        assert f"; not tested: {reason}" in text and "would decide" not in text


def test_claim_may_require_fewer_parameters(tmp_path: Path) -> None:
    few, many = (Parameters(trainable=n, adapter=n, total=10**9) for n in (100, 4000))
    write_runs(tmp_path, "lora", [0.50, 0.51, 0.52], rank=32, parameters=many)
    write_runs(tmp_path, "lora_sb", [0.52, 0.53, 0.54], rank=96, parameters=few)
    both = {"ours": {"method": "lora_sb"}, "same": ["model"], "test": "not_lower", "margin": 0.5}
    assert verdict_on(tmp_path, make_claim(**both, fewer_parameters=39)).answer == "reproduced"
    assert verdict_on(tmp_path, make_claim(**both, fewer_parameters=41)).answer == "contradicted"


def test_claims_about_start_cost_probes_and_spread(tmp_path: Path) -> None:
    for seed in (0, 1, 2):
        record = make_record("lora_sb", seed, {"gsm8k": 0.5}, seconds=Seconds(init=1.0 + 0.01 * seed, train=100.0))
        write_run(tmp_path, record)
        for method, rank in (("lora", 2.0), ("sds_lora", 6.0)):
            steps = [
                {"kind": "probe", "step": step, "erank": rank + 0.1 * seed * (method == "lora")} for step in (1, 2)
            ]
            write_run(tmp_path, make_record(method, seed, {"gsm8k": 0.5}), steps=steps)
    cost = make_claim(test="below", measure="init_share", ours={"method": "lora_sb"}, theirs={}, margin=2.0)
    assert verdict_on(tmp_path, cost).answer == "reproduced"
    assert verdict_on(tmp_path, cost.model_copy(update={"margin": 0.5})).answer == "contradicted"
    ranks = verdict_on(tmp_path, make_claim(measure="probe.erank"))
    assert ranks.answer == "reproduced" and ranks.findings[0].comparison.difference == pytest.approx(3.9)
    write_runs(tmp_path / "equal", "lora", [0.500, 0.502, 0.501])
    write_runs(tmp_path / "equal", "sds_lora", [0.501, 0.503, 0.502])
    spread = make_claim(test="spread", margin=1.0, ours={"method": ["lora", "sds_lora"]}, theirs={})
    assert verdict_on(tmp_path / "equal", spread).answer == "reproduced"


def test_spread_of_many_methods_is_corrected_for_choosing_the_extremes(tmp_path: Path) -> None:
    pair = make_claim(test="spread", margin=1.0, ours={"method": ["lora", "sds_lora"]}, theirs={})
    write_runs(tmp_path, "lora", [0.500, 0.510, 0.505, 0.490])
    write_runs(tmp_path, "sds_lora", [0.530, 0.533, 0.548, 0.528])
    assert verdict_on(tmp_path, pair).answer == "contradicted"
    for method in ("rslora", "pissa", "dora", "lora_pro"):
        write_runs(tmp_path, method, [0.515, 0.52, 0.522, 0.51])
    six = make_claim(
        test="spread", margin=1.0, ours={"method": ["lora", "sds_lora", "rslora", "pissa", "dora"]}, theirs={}
    )
    finding = verdict_on(tmp_path, six).findings[0]
    assert finding.answer == "undecided" and "99.5 % interval" in finding.note


def test_the_verb(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_runs(tmp_path, "lora", [0.50, 0.51, 0.53])
    write_runs(tmp_path, "sds_lora", [0.60, 0.61, 0.62])
    assert main(["verdict", "--runs", str(tmp_path)]) == 0
    text = capsys.readouterr().out
    assert "undecided (no runs)" in text and "elsewhere" in text
    assert main(["verdict", "sds_above_lora_gsm8k", "--runs", str(tmp_path), "--format", "json"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["id"] == "sds_above_lora_gsm8k"
    assert main(["verdict", "nonsense", "--runs", str(tmp_path)]) == 2
