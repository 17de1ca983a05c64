"""Claims against runs made by hand: each answer reached, contexts kept apart, numbers named."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest

from sdsbench.__main__ import main
from sdsbench.core.errors import DamagedFile, Unavailable
from sdsbench.core.record import Parameters, Seconds
from sdsbench.results.claims.claim import Claim
from sdsbench.results.claims.claim_files import FILES, PAPERS, read, register_claims
from sdsbench.results.claims.decide import decide, joint_answer, needed_to_decide
from sdsbench.results.claims.verdict import Verdict, judge
from sdsbench.results.claims.verdict_texts import markdown
from sdsbench.results.statistics import contrasts, variances
from sdsbench.results.tables.loaded_runs import load
from tests.results.tables.fixtures import make_record, make_samples, tuned, write_run

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


def over_seeds(mean: float, deviation: float = 1.0, seeds: int = 3) -> contrasts.Comparison:
    return contrasts.concluded("t", mean, variances.Variances(deviation**2 / seeds, seeds - 1), seeds)


def test_all_contexts_must_agree_and_one_clear_contradiction_is_enough() -> None:
    clear, against, open_ = over_seeds(9.0), over_seeds(-30.0), over_seeds(0.5)
    assert joint_answer("higher", 0.0, [clear, clear]) == "reproduced"
    assert joint_answer("higher", 0.0, [clear, open_]) == "undecided"
    assert joint_answer("higher", 0.0, [clear, open_, against]) == "contradicted"
    assert joint_answer("higher", 0.0, []) == "undecided"


def test_a_contradiction_among_many_contexts_must_be_clear_at_their_number() -> None:
    """-2.6 +- 2.48 contradicts alone, not as one of thirty."""
    against = over_seeds(-2.6)
    assert joint_answer("higher", 0.0, [against]) == "contradicted"
    assert joint_answer("higher", 0.0, [against, *[over_seeds(0.1)] * 29]) == "undecided"


def test_what_would_decide() -> None:
    def further(test: str, mean: float, margin: float, seeds: int) -> int | None:
        return needed_to_decide(test, over_seeds(mean, 1.0, seeds), margin).seeds

    assert further("higher", 0.5, 0.0, 3) == 34
    assert further("higher", 0.0, 0.0, 3) is None
    assert further("within", 0.5, 1.0, 4) == 34


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
    assert finding.comparison.difference == pytest.approx(100 * (np.mean(ours) - np.mean([0.50, 0.51, 0.53])))
    assert len(finding.runs) == 6 and finding.comparison.seeds == 3
    assert f"runs {', '.join(finding.runs[:3])} and 3 more\n" in markdown([result]), "a text names three of them"
    assert result.plain()["findings"][0]["runs"] == list(finding.runs), "the machine-readable form all"
    assert (finding.needed.seeds is not None and finding.needed.seeds > 3) == (answer == "undecided")
    asked = f"about {(finding.needed.seeds or 0) - 3} more seeds a side would decide"
    assert (asked in markdown([result])) == (answer == "undecided")


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
    found = finding.comparison
    assert found.test.startswith("t over unpaired seeds and questions") and finding.answer == "reproduced"
    assert 15 < found.low < found.difference < found.high < 45  # points, not fractions


def test_where_questions_are_the_limit_no_seeds_are_asked_for(tmp_path: Path) -> None:
    """Runs of a method that answer nearly alike: more of them say no more, more questions would."""
    rng = np.random.default_rng(3)
    answers = {"lora": rng.random(60) < 0.5, "sds_lora": rng.random(60) < 0.55}
    for method, right in answers.items():
        for seed in range(3):
            once = right.copy()
            once[seed] = ~once[seed]
            write_run(
                tmp_path, make_record(method, seed, {"gsm8k": float(once.mean())}, n=60), {"gsm8k": make_samples(once)}
            )
    result = verdict(tmp_path, claim())
    needed = result.findings[0].needed
    assert result.answer == "undecided" and needed.seeds is None and needed.questions is not None
    assert f"more seeds would not decide: at least {needed.questions} questions are needed" in markdown([result])


@pytest.mark.parametrize("seeds", [1, 2])
def test_fewer_than_three_seeds_are_no_evidence(tmp_path: Path, seeds: int) -> None:
    write(tmp_path, "lora", [0.2, 0.21][:seeds])
    write(tmp_path, "sds_lora", [0.9, 0.91, 0.92])
    result = verdict(tmp_path, claim())
    assert result.answer == "inadmissible" and "3 are needed" in result.findings[0].note


def test_runs_of_two_codes_are_not_averaged(tmp_path: Path) -> None:
    write(tmp_path, "lora", [0.50, 0.51, 0.52])
    write(tmp_path, "sds_lora", [0.6, 0.61])
    write_run(tmp_path, make_record("sds_lora", 2, {"gsm8k": 0.6}, code_hash="other"))
    finding = verdict(tmp_path, claim()).findings[0]
    assert finding.answer == "inadmissible" and "code.core" in finding.note


def test_unequal_settings_are_no_evidence_and_settings_of_both_sides_are_contexts(tmp_path: Path) -> None:
    steps = {n: {"config": {"train": {"lr": 1e-3, "max_steps": n}}} for n in (10, 80)}
    write(tmp_path / "one", "lora", [0.50, 0.51, 0.52], **steps[10])
    write(tmp_path / "one", "sds_lora", [0.60, 0.61, 0.62], **steps[80])
    finding = verdict(tmp_path / "one", claim()).findings[0]
    assert finding.answer == "inadmissible"
    assert "unequal settings: train.max_steps: 10 in" in finding.note and "; 80 in" in finding.note
    write(tmp_path / "two", "lora", [0.50, 0.51, 0.52], **steps[10])
    write(tmp_path / "two", "sds_lora", [0.60, 0.61, 0.62], **steps[10])
    write(tmp_path / "two", "lora", [0.70, 0.71, 0.72], **steps[80])
    write(tmp_path / "two", "sds_lora", [0.60, 0.61, 0.62], **steps[80])
    findings = verdict(tmp_path / "two", claim()).findings
    assert sorted((f.answer, f.context.split(", ")[-1]) for f in findings) == [
        ("contradicted", "train.max_steps 80"),
        ("reproduced", "train.max_steps 10"),
    ]


@pytest.mark.parametrize("chosen, answer", [(1e-3, "reproduced"), (1e-2, "inadmissible"), (1e-4, "inadmissible")])
def test_a_best_rate_at_the_end_of_its_grid_is_no_evidence(tmp_path: Path, chosen: float, answer: str) -> None:
    grid = [1e-4, 1e-3, 1e-2]
    write(tmp_path, "lora", [0.50, 0.51, 0.52], tuning=tuned(1e-3, grid))
    write(tmp_path, "sds_lora", [0.60, 0.61, 0.62], lr=chosen, tuning=tuned(chosen, grid))
    finding = verdict(tmp_path, claim()).findings[0]
    assert finding.answer == answer
    assert ("is an end of the grid (0.0001 to 0.01)" in finding.note) == (answer == "inadmissible")


def test_untuned_runs_are_no_evidence_for_a_claim_about_tuned_methods(tmp_path: Path) -> None:
    write(tmp_path, "lora", [0.50, 0.51, 0.52])
    write(tmp_path, "sds_lora", [0.60, 0.61, 0.62])
    assert verdict(tmp_path, claim()).answer == "reproduced"
    result = verdict(tmp_path, claim(tuned=True))
    assert result.answer == "inadmissible" and "not tuned, and the claim is about tuned" in result.findings[0].note


def constant(predictions: list[float], labels: list[float]) -> list[dict[str, object]]:
    return [
        {"index": i, "id": f"q{i}", "target": t, "response": p, "scores": {"accuracy": float(t == p)}}
        for i, (t, p) in enumerate(zip(labels, predictions, strict=True))
    ]


def test_constant_predictors_are_no_evidence(tmp_path: Path) -> None:
    """MRPC: both sides predict one class in every run; `contradicted: +0 [0, 0]` once. RTE: one side does."""
    labels = [1.0] * 14 + [0.0] * 6
    for task, learning in (("glue/mrpc", False), ("glue/rte", True)):
        for method in ("lora", "sds_lora"):
            for seed in range(3):
                learns = learning and method == "lora"
                answers = constant([*labels[: 19 - seed], *[1.0] * (1 + seed)] if learns else [1.0] * 20, labels)
                value = sum(answer["scores"]["accuracy"] for answer in answers) / 20  # type: ignore[index,misc]
                record = make_record(method, seed, {task: value}, task=task, scorer="accuracy", n=20, family="encoder")
                write_run(tmp_path, record, {task: answers})
    result = verdict(tmp_path, claim())
    assert result.answer == "inadmissible" and {f.answer for f in result.findings} == {"inadmissible"}
    assert all("did not learn (one prediction for every row)" in f.note for f in result.findings)
    assert "inadmissible (2 inadmissible)" in markdown([result])


def test_a_score_at_the_untrained_models_is_no_evidence(tmp_path: Path) -> None:
    from sdsbench.core.record import Score

    for method, values in (("lora", [0.30, 0.31, 0.32]), ("sds_lora", [0.1, 0.11, 0.12])):
        for seed, value in enumerate(values):
            record = make_record(method, seed, {"gsm8k": value})
            record.scores.append(
                Score(evaluation="gsm8k", version=1, scorer="flexible", stage="untrained", value=0.11, n=200)
            )
            write_run(tmp_path, record)
    finding = verdict(tmp_path, claim()).findings[0]
    assert finding.answer == "inadmissible"
    assert "ours: 2 of 3 runs did not learn (not above its floor (untrained model, 11.00))" in finding.note


def test_a_score_that_hangs_on_truncated_answers_is_no_evidence(tmp_path: Path) -> None:
    """LoRA's answers were cut short more often than the methods differ; where few were, the answer stands."""
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
    finding = verdict(tmp_path / "many", claim()).findings[0]
    assert finding.answer == "inadmissible" and "hangs on truncated outputs: 0.0 and 40.0 points" in finding.note
    assert verdict(tmp_path / "few", claim()).answer == "reproduced"


def test_thirty_contexts_are_one_claim(tmp_path: Path) -> None:
    """One context alone contradicts, at p = 0.02: among thirty that is no contradiction."""
    rng = np.random.default_rng(1)
    write(tmp_path, "lora", [0.52, 0.53, 0.54], model="m0")
    write(tmp_path, "sds_lora", [0.50, 0.51, 0.49], model="m0")
    for number in range(1, 30):
        for method in ("lora", "sds_lora"):
            write(tmp_path, method, (0.5 + rng.normal(0, 0.02, 3)).tolist(), model=f"m{number}")
    result = verdict(tmp_path, claim())
    assert "contradicted" in {finding.answer for finding in result.findings}
    assert result.answer == "undecided"
    assert result.pooled is not None and result.pooled.low < 0 < result.pooled.high
    text = markdown([result])
    assert "undecided together (paper's setting; 30 contexts;" in text and "pooled effect" in text


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
    assert ranks.answer == "reproduced" and ranks.findings[0].comparison.difference == pytest.approx(3.9)
    write(tmp_path / "equal", "lora", [0.500, 0.502, 0.501])
    write(tmp_path / "equal", "sds_lora", [0.501, 0.503, 0.502])
    spread = claim(test="spread", margin=1.0, ours={"method": ["lora", "sds_lora"]}, theirs={})
    assert verdict(tmp_path / "equal", spread).answer == "reproduced"


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


def test_a_shipped_table_is_never_a_reproduction_of_ones_own(tmp_path: Path) -> None:
    shipped = next(c for c in read(PAPERS) if c.test == "file")
    result = judge(shipped, [], PAPERS.parent)
    assert result.source == "shipped theory bench" and result.plain()["evidence"] == "shipped theory bench"
    text = markdown([result])
    assert "no runs; shipped theory bench: reproduced" in text and "| reproduced |" not in text
    assert "shipped theory bench, no runs of yours" in text
    (tmp_path / "theory").mkdir()
    (tmp_path / shipped.file).write_text((PAPERS.parent / shipped.file).read_text())
    assert "no runs; given table: reproduced" in markdown([judge(shipped, [], tmp_path)])


def test_the_shipped_claims_are_valid() -> None:
    claims = read(PAPERS)
    assert len({c.id for c in claims}) == len(claims) >= 8


def test_bad_claim_files(tmp_path: Path) -> None:
    with pytest.raises(Unavailable):
        read(tmp_path / "none.yaml")
    (tmp_path / "bad.yaml").write_text("claims: [{id: x, paper: p, sentence: s, test: higher}]")
    with pytest.raises(DamagedFile, match="needs measure, ours, same, theirs"):
        read(tmp_path / "bad.yaml")


def test_claims_of_every_registered_file_are_judged_and_ids_differ_between_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each claim reads its tables from the folder of its own file."""
    monkeypatch.setattr(FILES, "_values", {name: FILES.lookup(name) for name in FILES})
    mine = {"id": "mine", "paper": "mine", "sentence": "The error is small.", "test": "file", "file": "errors.csv",
            "row": {"method": "mine"}, "columns": {"value": "error", "low": "low", "high": "high"},
            "bounds": [None, 0.1]}  # fmt: skip
    path = tmp_path / "mine" / "claims.yaml"
    path.parent.mkdir()
    path.write_text(json.dumps({"claims": [mine]}))
    (path.parent / "errors.csv").write_text("method,error,low,high\nmine,0.01,0.0,0.02\n")
    register_claims("mine", path)
    write(tmp_path / "runs", "lora", [0.5])
    assert main(["verdict", "--runs", str(tmp_path / "runs")]) == 0
    text = capsys.readouterr().out
    assert "| The error is small. | mine | no runs; given table: reproduced |" in text
    assert read(PAPERS)[0].sentence in text, "beside the project's own"
    path.write_text(json.dumps({"claims": [mine | {"id": read(PAPERS)[0].id}]}))
    assert main(["verdict", "--runs", str(tmp_path / "runs")]) == 2
    message = " ".join(capsys.readouterr().err.split())
    assert str(PAPERS) in message and str(path) in message
    assert main(["verdict", "--runs", str(tmp_path / "runs"), "--claims", str(path)]) == 0, "that file alone"


def test_the_verb(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path, "lora", [0.50, 0.51, 0.53])
    write(tmp_path, "sds_lora", [0.60, 0.61, 0.62])
    assert main(["verdict", "--runs", str(tmp_path)]) == 0
    text = capsys.readouterr().out
    assert "undecided (no runs)" in text and "elsewhere" in text
    assert main(["verdict", "sds_above_lora_gsm8k", "--runs", str(tmp_path), "--format", "json"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["id"] == "sds_above_lora_gsm8k"
    assert main(["verdict", "nonsense", "--runs", str(tmp_path)]) == 2
