"""Claims judged on hand-made runs: every answer is reached, contexts are kept apart, and numbers are named."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest

from sdsbench.__main__ import main
from sdsbench.core.errors import DamagedFile, Unavailable
from sdsbench.core.record import Parameters, Seconds
from sdsbench.results.claims.claim import Claim, default_file, read
from sdsbench.results.claims.decide import decide, joint_answer, needed_to_decide
from sdsbench.results.claims.verdict import Verdict, judge
from sdsbench.results.claims.verdict_texts import markdown
from sdsbench.results.statistics import contrasts, variances
from sdsbench.results.tables.runs import load
from tests.results.tables.fixtures import make_record, make_samples, tuned, write_run

SAME = ["model", "task", "rank", "data_source"]


def make_claim(**changes: object) -> Claim:
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


def verdict_on(root: Path, tested: Claim) -> Verdict:
    return judge(tested, load(root)[0], root)


def write_runs(root: Path, method: str, values: list[float], **options: object) -> None:
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
def test_interval_and_margin_decide_the_answer(test: str, low: float, high: float, margin: float, answer: str) -> None:
    assert decide(test, low, high, margin) == answer


def comparison_of(mean: float, deviation: float = 1.0, seeds: int = 3) -> contrasts.Comparison:
    return contrasts.concluded("t", mean, variances.Variances(deviation**2 / seeds, seeds - 1), seeds)


def test_all_contexts_must_agree_or_one_must_clearly_contradict() -> None:
    clear, against, open_ = comparison_of(9.0), comparison_of(-30.0), comparison_of(0.5)
    assert joint_answer("higher", 0.0, [clear, clear]) == "reproduced"
    assert joint_answer("higher", 0.0, [clear, open_]) == "undecided"
    assert joint_answer("higher", 0.0, [clear, open_, against]) == "contradicted"
    assert joint_answer("higher", 0.0, []) == "undecided"


def test_contradiction_is_corrected_for_the_number_of_contexts() -> None:
    """A difference of -2.6 +- 2.48 contradicts a claim alone, but not as one of thirty contexts."""
    against = comparison_of(-2.6)
    assert joint_answer("higher", 0.0, [against]) == "contradicted"
    assert joint_answer("higher", 0.0, [against, *[comparison_of(0.1)] * 29]) == "undecided"


def test_number_of_seeds_that_would_decide() -> None:
    def seeds_needed(test: str, mean: float, margin: float, seeds: int) -> int | None:
        return needed_to_decide(test, comparison_of(mean, 1.0, seeds), margin).seeds

    assert seeds_needed("higher", 0.5, 0.0, 3) == 34
    assert seeds_needed("higher", 0.0, 0.0, 3) is None
    assert seeds_needed("within", 0.5, 1.0, 4) == 34


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


@pytest.mark.parametrize("seeds", [1, 2])
def test_fewer_than_three_seeds_are_inadmissible(tmp_path: Path, seeds: int) -> None:
    write_runs(tmp_path, "lora", [0.2, 0.21][:seeds])
    write_runs(tmp_path, "sds_lora", [0.9, 0.91, 0.92])
    result = verdict_on(tmp_path, make_claim())
    assert result.answer == "inadmissible" and "3 are needed" in result.findings[0].note


def test_runs_of_two_code_versions_are_not_averaged(tmp_path: Path) -> None:
    write_runs(tmp_path, "lora", [0.50, 0.51, 0.52])
    write_runs(tmp_path, "sds_lora", [0.6, 0.61])
    write_run(tmp_path, make_record("sds_lora", 2, {"gsm8k": 0.6}, code_hash="other"))
    finding = verdict_on(tmp_path, make_claim()).findings[0]
    assert finding.answer == "inadmissible" and "code.core" in finding.note


def test_unequal_settings_are_inadmissible_and_shared_settings_are_contexts(tmp_path: Path) -> None:
    steps = {n: {"config": {"train": {"lr": 1e-3, "max_steps": n}}} for n in (10, 80)}
    write_runs(tmp_path / "one", "lora", [0.50, 0.51, 0.52], **steps[10])
    write_runs(tmp_path / "one", "sds_lora", [0.60, 0.61, 0.62], **steps[80])
    finding = verdict_on(tmp_path / "one", make_claim()).findings[0]
    assert finding.answer == "inadmissible"
    assert "unequal settings: train.max_steps: 10 in" in finding.note and "; 80 in" in finding.note
    write_runs(tmp_path / "two", "lora", [0.50, 0.51, 0.52], **steps[10])
    write_runs(tmp_path / "two", "sds_lora", [0.60, 0.61, 0.62], **steps[10])
    write_runs(tmp_path / "two", "lora", [0.70, 0.71, 0.72], **steps[80])
    write_runs(tmp_path / "two", "sds_lora", [0.60, 0.61, 0.62], **steps[80])
    findings = verdict_on(tmp_path / "two", make_claim()).findings
    assert sorted((f.answer, f.context.split(", ")[-1]) for f in findings) == [
        ("contradicted", "train.max_steps 80"),
        ("reproduced", "train.max_steps 10"),
    ]


@pytest.mark.parametrize("chosen, answer", [(1e-3, "reproduced"), (1e-2, "inadmissible"), (1e-4, "inadmissible")])
def test_best_rate_at_the_end_of_its_grid_is_inadmissible(tmp_path: Path, chosen: float, answer: str) -> None:
    grid = [1e-4, 1e-3, 1e-2]
    write_runs(tmp_path, "lora", [0.50, 0.51, 0.52], tuning=tuned(1e-3, grid))
    write_runs(tmp_path, "sds_lora", [0.60, 0.61, 0.62], lr=chosen, tuning=tuned(chosen, grid))
    finding = verdict_on(tmp_path, make_claim()).findings[0]
    assert finding.answer == answer
    assert ("is an end of the grid (0.0001 to 0.01)" in finding.note) == (answer == "inadmissible")


def test_untuned_runs_are_inadmissible_for_a_claim_about_tuned_methods(tmp_path: Path) -> None:
    write_runs(tmp_path, "lora", [0.50, 0.51, 0.52])
    write_runs(tmp_path, "sds_lora", [0.60, 0.61, 0.62])
    assert verdict_on(tmp_path, make_claim()).answer == "reproduced"
    result = verdict_on(tmp_path, make_claim(tuned=True))
    assert result.answer == "inadmissible" and "not tuned, and the claim is about tuned" in result.findings[0].note


def classifier_answers(predictions: list[float], labels: list[float]) -> list[dict[str, object]]:
    return [
        {"index": i, "id": f"q{i}", "target": t, "response": p, "scores": {"accuracy": float(t == p)}}
        for i, (t, p) in enumerate(zip(labels, predictions, strict=True))
    ]


def test_constant_predictors_are_inadmissible(tmp_path: Path) -> None:
    """On MRPC both sides predict one class in every run; on RTE one side does."""
    labels = [1.0] * 14 + [0.0] * 6
    for task, learning in (("glue/mrpc", False), ("glue/rte", True)):
        for method in ("lora", "sds_lora"):
            for seed in range(3):
                learns = learning and method == "lora"
                answers = classifier_answers(
                    [*labels[: 19 - seed], *[1.0] * (1 + seed)] if learns else [1.0] * 20, labels
                )
                value = sum(answer["scores"]["accuracy"] for answer in answers) / 20  # type: ignore[index,misc]
                record = make_record(method, seed, {task: value}, task=task, scorer="accuracy", n=20, family="encoder")
                write_run(tmp_path, record, {task: answers})
    result = verdict_on(tmp_path, make_claim())
    assert result.answer == "inadmissible" and {f.answer for f in result.findings} == {"inadmissible"}
    assert all("did not learn (one prediction for every row)" in f.note for f in result.findings)
    assert "inadmissible (2 inadmissible)" in markdown([result])


def test_score_of_the_untrained_model_is_inadmissible(tmp_path: Path) -> None:
    from sdsbench.core.record import Score

    for method, values in (("lora", [0.30, 0.31, 0.32]), ("sds_lora", [0.1, 0.11, 0.12])):
        for seed, value in enumerate(values):
            record = make_record(method, seed, {"gsm8k": value})
            record.scores.append(
                Score(evaluation="gsm8k", version=1, scorer="flexible", stage="untrained", value=0.11, n=200)
            )
            write_run(tmp_path, record)
    finding = verdict_on(tmp_path, make_claim()).findings[0]
    assert finding.answer == "inadmissible"
    assert "ours: 2 of 3 runs did not learn (not above its floor (untrained model, 11.00))" in finding.note


def test_score_that_depends_on_truncated_answers_is_inadmissible(tmp_path: Path) -> None:
    """More of LoRA's answers are truncated than the methods differ by; where few are, the answer is unchanged."""
    rng = np.random.default_rng(0)
    for folder, cut in (("many", 40), ("few", 1)):
        for method, skill in (("lora", 0.3), ("sds_lora", 0.6)):
            for seed in range(3):
                right = rng.random(100) < skill
                answers = make_samples(right)
                wrong = [answer for answer in answers if not answer["scores"]["flexible"]]
                for number, answer in enumerate(wrong):
                    answer["truncated"] = method == "lora" and number < cut
                for answer in answers:
                    answer.setdefault("truncated", False)
                record = make_record(method, seed, {"gsm8k": float(right.mean())}, n=100)
                write_run(tmp_path / folder, record, {"gsm8k": answers})
    finding = verdict_on(tmp_path / "many", make_claim()).findings[0]
    assert finding.answer == "inadmissible" and "hangs on truncated outputs: 0.0 and 40.0 points" in finding.note
    assert verdict_on(tmp_path / "few", make_claim()).answer == "reproduced"


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


def test_claims_about_a_table(tmp_path: Path) -> None:
    (tmp_path / "slopes.csv").write_text("method,slope,lo,hi\nsds_lora,0.01,-0.02,0.03\nlora,-0.9,-1.0,-0.8\n")
    about = {"test": "file", "file": "slopes.csv", "columns": {"value": "slope", "low": "lo", "high": "hi"}}
    assert (
        verdict_on(tmp_path, make_claim(**about, row={"method": "sds_lora"}, bounds=[-0.1, 0.1])).answer == "reproduced"
    )
    assert (
        verdict_on(tmp_path, make_claim(**about, row={"method": "lora"}, bounds=[-0.1, 0.1])).answer == "contradicted"
    )
    below = make_claim(**about, row={"method": "lora"}, bounds=[None, -0.1])
    assert verdict_on(tmp_path, below).answer == "reproduced"
    assert "bounds unbounded to -0.1" in markdown([verdict_on(tmp_path, below)])
    assert verdict_on(tmp_path, make_claim(**{**about, "file": "none.csv"}, row={"method": "lora"})).findings == ()


def test_shipped_table_does_not_count_as_the_users_reproduction(tmp_path: Path) -> None:
    shipped = next(c for c in read(default_file()) if c.test == "file")
    result = judge(shipped, [], default_file().parent)
    assert result.source == "shipped theory bench" and result.plain()["evidence"] == "shipped theory bench"
    text = markdown([result])
    assert "no runs; shipped theory bench: reproduced" in text and "| reproduced |" not in text
    assert "shipped theory bench, no runs of yours" in text
    (tmp_path / "theory").mkdir()
    (tmp_path / shipped.file).write_text((default_file().parent / shipped.file).read_text())
    assert "no runs; given table: reproduced" in markdown([judge(shipped, [], tmp_path)])


def test_shipped_claims_are_valid() -> None:
    claims = read(default_file())
    assert len({c.id for c in claims}) == len(claims) >= 8


def test_missing_and_invalid_claim_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(Unavailable):
        read(tmp_path / "none.yaml")
    (tmp_path / "bad.yaml").write_text("claims: [{id: x, paper: p, sentence: s, test: higher}]")
    with pytest.raises(DamagedFile, match="needs measure, ours, same, theirs"):
        read(tmp_path / "bad.yaml")


def test_verdict_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_runs(tmp_path, "lora", [0.50, 0.51, 0.53])
    write_runs(tmp_path, "sds_lora", [0.60, 0.61, 0.62])
    assert main(["verdict", "--runs", str(tmp_path)]) == 0
    text = capsys.readouterr().out
    assert "undecided (no runs)" in text and "elsewhere" in text
    assert main(["verdict", "sds_above_lora_gsm8k", "--runs", str(tmp_path), "--format", "json"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["id"] == "sds_above_lora_gsm8k"
    assert main(["verdict", "nonsense", "--runs", str(tmp_path)]) == 2
