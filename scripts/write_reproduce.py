"""Write docs/reproduce.md: for each published table, the commands and an estimate of GPU-hours and disk space.

    python scripts/write_reproduce.py

The number of runs comes from conf/sweep; hours and fit from the model that `sdsbench plan` uses. A test checks that the
document is what this script writes.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from sdsbench.methods import base as methods
from sdsbench.runs.configuration.schema import RunConfig
from sdsbench.sweeps import cost
from sdsbench.sweeps.expand import Composer
from sdsbench.sweeps.workload import LARGEST_STEP_DEVIATIONS, LONGEST_ANSWER_RATIO

ROOT = Path(__file__).parent.parent
TARGET = ROOT / "docs" / "reproduce.md"


def points(sweep: str) -> Iterator[dict[str, Any]]:
    """Yield every run of a named sweep as a mapping of keys to values."""
    tree = yaml.safe_load((ROOT / "conf" / "sweep" / f"{sweep}.yaml").read_text())
    for block in tree["blocks"]:
        made = [dict(line.split("=", 1) for line in block["fixed"])]
        for key, values in block["axes"].items():
            made = [{**point, key: value} for point in made for value in values]
        yield from made


@dataclass(frozen=True)
class Estimate:
    """Estimated cost of one run."""

    hours: float
    fits: bool  # the memory of the reference card
    disk: float  # bytes of its folder at most


def estimates(runs: Sequence[dict[str, Any]]) -> list[Estimate]:
    """The estimate of `sdsbench plan` for each run (sdsbench/sweeps/cost.py); the seed does not change it."""
    composer, known = Composer({"data.source": "hub"}), dict[str, Estimate]()
    found = []
    for run in runs:
        point = {key: value if isinstance(value, str) else json.dumps(value) for key, value in run.items()}
        name = json.dumps({key: value for key, value in point.items() if key != "seed"})
        if name not in known:
            config = composer.configuration(point)
            composer.raise_problems()
            assert config is not None
            known[name] = estimate(config)
        found.append(known[name])
    return found


def estimate(config: RunConfig) -> Estimate:
    """The estimate for one configuration."""
    found, size = cost.modelled(config, memory=True), cost.disk_bytes(config)
    assert found is not None and found.bytes is not None and size is not None
    return Estimate(found.seconds / 3600, cost.fits(found.bytes)[cost.REFERENCE], size)


TABLES = (
    ("lora_sb/table1", ["lora_sb/table1"], "Table 1 of LoRA-SB: arithmetic"),
    ("lora_sb/table2", ["lora_sb/table2"], "Table 2 of LoRA-SB: commonsense"),
    ("lora_sb/table3", ["lora_sb/table3", "lora_sb/table3_last_epoch"], "Table 3 of LoRA-SB: GLUE"),
    ("lora_sb/table4", ["lora_sb/table4"], "Table 4 of LoRA-SB: what the start approximates"),
    ("lora_sb/table5", ["lora_sb/table5"], "Table 5 of LoRA-SB: rows of the start"),
    ("lora_sb/table6", ["lora_sb/table6"], "Table 6 of LoRA-SB: time of the start"),
    ("sds_lora/math", ["sds_lora/math"], "SDS-LoRA: math"),
    (
        "sds_lora/commonsense",
        ["sds_lora/commonsense_gemma_2b", "sds_lora/commonsense_llama3_8b"],
        "SDS-LoRA: commonsense",
    ),
    ("sds_lora/vision", ["sds_lora/vision_vit_base", "sds_lora/vision_vit_large"], "SDS-LoRA: vision"),
)

HEAD = """\
# From nothing to each published table

This page gives the commands that reproduce each published table, with their cost. It is written by
`python scripts/write_reproduce.py`; every hour and gigabyte is an **estimate**, none was measured. `sdsbench plan`
prints an estimate for your card, corrected by finished runs.

Once on each machine (models and data sets from the hub are downloaded at pinned commits, or the commit is recorded;
gated models need `HF_TOKEN`). torchao is needed by the full fine-tuning runs of 7B to 9B models only:

    make setup
    .venv/bin/pip install --constraint requirements.lock torchao

Each sweep is planned once, run on one card or as a SLURM array, and its table is rendered from the records alone. A
repeated command does only the missing work. Tables share runs: the last row of Table 4 and the 0.1 % rows of Table 6
are runs of Tables 1 and 2.

## How the estimates are made

They come from the cost model of `sdsbench plan` (`sdsbench/sweeps/cost.py`), for one A6000:

- Rows and mean tokens a row: of the public sets (`sdsbench/data/sizes.py`).
- Training: 4 x weights x tokens / rate, at {rate:.0f} T operations a second in bf16 (the rate that follows from
  LoRA-SB's printed times of epochs of Mistral-7B and Gemma-2 9B on an A6000, at 230 tokens a row), {rate32:.0f} T in
  fp32. The third printed time, Llama-3.2 3B on short rows, is 2.2 times this estimate; training here does not pad.
- Factors on the training time: {slower}; the first two as published for another benchmark, the third assumed.
- Each evaluation (after training, after each epoch of GLUE): prompts and answers at 2 x weights a token and the same
  rates; the weights are read once for each step of generation, at {bandwidth:.0f} GB/s. A batch takes as long as
  {longest:.0f} mean answers, since rows differ; four beams count as four rows.
- Memory: the least that a run needs, counted for a pass over one row of the maximum length (with adamw8bit over all
  rows of a step, {above:.0f} standard deviations above the mean of their tokens). A run fits if it needs at most
  {usable:.0%} of the card.
- Disk: 4 bytes for each trained (or frozen low-rank) number, 400 for an answer, 200 for a step; plus base weights and
  data sets once.
- Runs that do not fit end as `oom`, which the table shows; they are counted in the runs, not in the hours.

| sweep | runs | of them beyond 48 GB | GPU-hours | days on one A6000 | disk, GB |
| --- | --: | --: | --: | --: | --: |
"""


def document() -> str:
    """The whole text of docs/reproduce.md."""
    names = sorted(path.stem for path in (ROOT / "conf" / "method").glob("*.yaml"))
    factors = {name: methods.lookup(name)[0].relative_time for name in names}
    slower = ", ".join(f"{name} x {factor}" for name, factor in factors.items() if factor != 1)
    rates = {"rate": cost.RATE["bfloat16"] / 1e12, "rate32": cost.RATE["float32"] / 1e12, "slower": slower}
    rules = {
        "bandwidth": cost.BANDWIDTH / 1e9,
        "longest": LONGEST_ANSWER_RATIO,
        "above": LARGEST_STEP_DEVIATIONS,
        "usable": cost.USABLE,
    }
    parts = [HEAD.format(**rates, **rules)]
    details = []
    for sweep, tables, title in TABLES:
        runs = estimates(list(points(sweep)))
        fitting = [run for run in runs if run.fits]
        total, size = sum(run.hours for run in fitting), sum(run.disk for run in fitting) / 1e9
        numbers = [f"`{sweep}`", str(len(runs)), str(len(runs) - len(fitting))]
        numbers += [_round(total), _round(total / 24), _round(size)]
        parts.append(f"| {' | '.join(numbers)} |\n")
        details.append(_section(sweep, tables, title, max(run.hours for run in fitting)))
    return "".join(parts) + _WITHOUT_RUNS + "".join(details)


PREPARED = ("lora_sb/table2", "sds_lora/commonsense")  # no hub set has the form of these benchmarks

_PREPARATION = """
Once: convert LLM-Adapters' JSON files to parquet (no data set on the hub has the form of its test sets).

    git clone https://github.com/AGI-Edgerunners/LLM-Adapters
    python scripts/prepare_commonsense.py LLM-Adapters data
"""


def _section(sweep: str, tables: list[str], title: str, longest: float) -> str:
    command = "    python -m sdsbench"
    data = " data.source=local data.root=data" if sweep in PREPARED else ""
    render = "\n".join(f"{command} table {table} --output results/tables" for table in tables)
    return f"""
## {title}
{_PREPARATION if data else ""}
One A6000:

{command} plan sweep={sweep}{data}
{command} sweep {sweep}
{render}

SLURM array (the longest run takes about {math.ceil(longest)} h, estimated; a run that reaches its time limit continues
after a requeue):

{command} plan sweep={sweep}{data}
{command} fetch {sweep}   # where there is a network: weights and data into the caches
{command} submit {sweep}
{command} status {sweep}
{render}
"""


def _round(value: float) -> str:
    """Two digits: it is an estimate."""
    if value <= 0:
        return "0"
    digits = max(0, 1 - math.floor(math.log10(value)))
    return f"{round(value, 1 - math.floor(math.log10(value))):,.{digits}f}"


_WITHOUT_RUNS = """
Tables 7 to 9 need no runs: Table 7 is counted from the architectures, 8 and 9 compare conf/protocol with the paper's
settings.

    python -m sdsbench table lora_sb/table7 --runs results
    python -m sdsbench table lora_sb/table8
    python -m sdsbench table lora_sb/table9
"""

if __name__ == "__main__":
    TARGET.write_text(document())
    print(TARGET.relative_to(ROOT))
