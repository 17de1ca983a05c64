"""Claims on hand-made runs, and their verdicts."""

from __future__ import annotations

from pathlib import Path

from sdsbench.results.claims.claim import Claim
from sdsbench.results.claims.verdict import Verdict, judge
from sdsbench.results.tables.loaded_runs import load
from tests.results.tables.fixtures import make_record, write_run

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
