"""The record of a run: the one file that tables, statistics and reports are built from.

A record holds the resolved configuration, the scores, the costs, and the code and inputs that produced them. It holds
no secrets, no paths of a machine, and nothing that cannot be recomputed or traced. Version 2; readers refuse other
versions.
"""

from __future__ import annotations

import math
from html import escape
from typing import Annotated, Any, Literal

from pydantic import Field

from sdsbench.core.allowed_names import RunId
from sdsbench.core.reading import FileContent

Status = Literal["running", "done", "failed", "oom", "timeout", "preempted"]

AttemptStatus = Literal[Status, "killed", "node_failure"]
"""How one attempt ended. `killed` and `node_failure` are set by the next attempt, since the process ended without
writing a status."""

STAGES = ("trained", "best_epoch", "validation", "untrained")
"""Stages at which the model is scored. (Stage `along`: weights between the base's and the final ones.)"""

Label = Annotated[str, Field(max_length=300, pattern=r"^[^\x00-\x1f\x7f]*$")]
"""Name of a model, method, task ...: one line without control characters, since titles and paths contain it."""


Unit = Literal["share", "number"]


def score_text(value: float, unit: Unit, sign: str = "") -> str:
    """A score as text: a share (0 to 1) in points of 100. `sign="+"` always writes the sign, for differences."""
    if unit == "share":
        return f"{100 * value:{sign}.2f}"
    return f"{value:{sign}.4f}" if abs(value) < 100 else f"{value:{sign}.1f}"  # a loss, or a perplexity


class Score(FileContent):
    """One number of one evaluation set."""

    evaluation: Label  # evaluation set: gsm8k, math, boolq, glue/rte, vtab/dtd ...
    version: int  # version of that evaluation's definition
    scorer: Label  # paper, strict, flexible, fixed, likelihood, accuracy, matthews ...
    stage: Literal["untrained", "trained", "best_epoch", "validation", "along"]
    value: float  # as a fraction for accuracies, 0 to 1
    unit: Unit = "share"  # a share is shown in points of 100
    better: Literal["higher", "lower"] = "higher"
    retention: bool = False  # a second score: what the base model could do before (eval.also, eval.text)
    along: float | None = None  # with stage `along`: share of the update that the scored weights hold
    stderr: float | None = None
    n: int
    headline: bool = False  # the scorer that this evaluation is ranked by
    floor: float | None = None  # score of a model that learned nothing: see floor_of
    floor_of: Literal["majority class", "constant", "chance"] | None = None
    classes: int | None = None  # for classifiers: number of different predictions
    truncated: int | None = None  # for generated answers: number that was cut at task.max_new_tokens
    prompts_cut: int = 0  # prompts that lost tokens on the left to fit the model's context with the longest answer
    undecided: int = 0  # answers whose grader hit a limit; they count as not correct in `value` until graded again

    @property
    def rank(self) -> float:
        """The value, negated if smaller is better: for ranking, larger is better."""
        return self.value if self.better == "higher" else -self.value

    @property
    def stage_text(self) -> str:
        """The stage for people; between base and trained model with the share of the update."""
        return self.stage if self.along is None else f"along {self.along:g}"

    def shown(self, value: float) -> str:
        """A value in this score's unit, formatted for people."""
        return score_text(value, self.unit)

    @property
    def note(self) -> str:
        """Remarks that must be shown beside the number; empty if there are none."""
        words = {f"{self.undecided} undecided": self.undecided, f"{self.prompts_cut} prompts cut": self.prompts_cut}
        return ", ".join(text for text, count in words.items() if count)


class DataUsed(FileContent):
    dataset: Label  # catalogue name: gsm8k, metamathqa ...
    split: Label
    source: Literal["hub", "local", "embedded"]
    revision: str | None = None
    rows: int
    fingerprint: str  # sha256 of the rows' content


class Lengths(FileContent):
    """How many training rows of a text or sentence task train.max_length truncated or removed."""

    max_length: int
    rows: int
    cut: int  # rows truncated at the end
    dropped: int  # rows removed, since truncation left no tokens with loss

    @property
    def share(self) -> float:
        """Share of rows that were truncated or removed."""
        return (self.cut + self.dropped) / self.rows

    @property
    def note(self) -> str:
        """The same as a sentence; empty if no row was changed."""
        dropped = f", {self.dropped:,} left out (no response token within it)" if self.dropped else ""
        text = f"{self.cut:,} of {self.rows:,} rows cut at train.max_length={self.max_length}{dropped}"
        return f"{text}: {100 * self.share:.1f} %" if self.share else ""


class Weights(FileContent):
    model: Label
    source: str  # hub id, package name or file name; never an absolute path
    revision: str | None = None
    fingerprint: str  # sha256 of the weights file(s)


class Seconds(FileContent):
    load: float = 0.0
    init: float = 0.0
    train: float = 0.0
    eval: float = 0.0


class Memory(FileContent):
    peak_bytes: int
    kind: Literal["rss", "cuda_allocated"]


class Parameters(FileContent):
    trainable: int  # everything that trains, classifier heads included
    adapter: int  # parameters of the method alone, the number in the papers' tables
    total: int  # parameters of the model before the method is attached


class Losses(FileContent):
    first: float
    last: float
    tail_mean: float  # mean over the last tenth of the steps
    steps: int
    validation: float | None = None  # mean loss of a target on rows held back, after training (tuning runs)


class Tokens(FileContent):
    trained: int  # tokens that went through the model, without padding
    targets: int  # tokens that carried loss
    padding_share: float  # padded positions / all positions


class Provenance(FileContent):
    packages: dict[str, str]
    python: str
    git_commit: str | None
    uncommitted: list[str] | None  # modules of `code` with uncommitted changes; None: no checkout
    code: dict[str, str]  # part of the code -> sha256 of its syntax trees (runs/origin.py)
    device: str  # e.g. "cpu: AMD EPYC" or "cuda: NVIDIA RTX A6000"
    device_kind: Literal["cpu", "cuda"]
    dtype: str
    threads: int
    data: list[DataUsed]
    weights: Weights
    start: str | None = None  # sha256 of the adapter that the run started from (start_from)

    def code_text(self) -> str:
        """Commit and code in a line for people."""
        changed = f" with {len(self.uncommitted)} changed module(s)" if self.uncommitted else ""
        parts = ", ".join(f"{part} {digest[:12]}" for part, digest in self.code.items())
        return f"commit {self.git_commit or 'unknown'}{changed}; {parts}"


class Tuning(FileContent):
    """How a hyper-parameter of this run was chosen (a `tune:` block of a sweep)."""

    key: str  # e.g. train.lr
    grid: list[float]  # every value that was tried, ascending
    budget: int  # number of tuning runs, the same for every method
    seeds: list[int]
    chosen: float
    scores: list[float | None]  # validation score per grid point, None: the run failed
    evaluation: str
    scorer: str
    losses: list[float | None] | None = None  # validation loss per grid point: it chooses among equal scores
    declared: list[float] | None = None  # the grid before tune.extend widened it; None: the same
    extend: int = 0  # by how many values tune.extend allowed to widen it at each end, the same for every method

    @property
    def interior(self) -> bool:
        """Whether the chosen value is not at an end of the grid; a better value beyond the ends is then unlikely."""
        return min(self.grid) < self.chosen < max(self.grid)

    @property
    def tie_broken_by(self) -> Literal["", "loss", "value"]:
        """What decided between values with equal best scores: the validation loss, or their order; empty without a
        tie."""
        scores = dict(zip(self.grid, self.scores, strict=False))
        losses = dict(zip(self.grid, self.losses or [], strict=False))
        tied = [value for value, score in scores.items() if equal_scores(score, scores.get(self.chosen))]
        if len(tied) < 2:
            return ""
        known = [loss for value in tied if (loss := losses.get(value)) is not None]
        decided = len(known) == len(tied) and len(set(known)) > 1 and losses[self.chosen] == min(known)
        return "loss" if decided else "value"


def equal_scores(one: float | None, other: float | None) -> bool:
    """Whether two means of scores are equal up to the rounding that depends on the order of summation."""
    return one is not None and other is not None and math.isclose(one, other, rel_tol=1e-9, abs_tol=1e-12)


class Failure(FileContent):
    type: str
    message: str
    step: int | None = None
    last_metrics: dict[str, float] = Field(default_factory=dict)


class Attempt(FileContent):
    """One process that worked on the run."""

    started: str  # UTC, ISO 8601
    ended: str | None = None
    status: AttemptStatus
    slurm_job: str | None = None
    from_step: int = 0
    others: float | None = None  # cores that other processes held meanwhile, on average; None: not known


class Record(FileContent):
    schema_version: Literal[2] = 2
    run_id: RunId  # and the name of its folder
    status: Status
    model: Label
    method: Label
    task: Label
    train_set: Label
    protocol: Label
    seed: int
    rank: int | None
    alpha: float | None
    lr: float
    config: dict[str, Any]
    inert: list[str] = Field(default_factory=list)  # dotted keys of config that have no effect in this run
    placing: dict[str, Any] = Field(default_factory=dict)  # keys that change what the run costs and not its numbers
    means: dict[str, dict[str, list[str]]] = Field(default_factory=dict)  # task -> mean -> the evaluations it is over
    scores: list[Score] = Field(default_factory=list)
    losses: Losses | None = None
    tokens: Tokens | None = None
    lengths: Lengths | None = None
    seconds: Seconds = Seconds()
    memory: Memory | None = None
    parameters: Parameters | None = None
    facts: dict[str, float] = Field(default_factory=dict)  # method's own numbers: refreshes, merge_drift_bf16 ...
    provenance: Provenance | None = None
    tuning: Tuning | None = None
    failure: Failure | None = None
    attempts: list[Attempt] = Field(default_factory=list)
    checksum: str = ""  # sha256 of the canonical JSON of everything above

    @property
    def ended_by(self) -> Failure | None:
        """What ended the last attempt. None while one runs: `failure` is then still that of the attempt before it."""
        return None if self.status == "running" else self.failure

    def _repr_html_(self) -> str:
        """HTML for notebooks: the run and its scores, shares in percent."""
        rows = "".join(
            f"<tr><td>{escape(s.evaluation)}</td><td>{escape(s.scorer)}</td><td>{s.stage}</td>"
            f"<td>{s.shown(s.value)}</td><td>{s.n}</td></tr>"
            for s in self.scores
        )
        head = "<tr><th>evaluation</th><th>scorer</th><th>stage</th><th>score</th><th>n</th></tr>"
        what = escape(f"{self.method} on {self.task} with {self.model}, seed {self.seed}: {self.status}")
        return f"<p>run <code>{self.run_id}</code>: {what}</p><table>{head}{rows}</table>"


def headline(record: Record) -> float | None:
    """The headline score after training, as a fraction: the task's own mean if it has several evaluations, or the mean
    of all where the run has none of that mean's parts (commonsense by likelihood alone). None if missing. Scores of
    retention do not count, since the run was not trained for them."""
    stages = ("trained", "validation")
    last = {s.evaluation: s.value for s in record.scores if s.headline and s.stage in stages and not s.retention}
    mean = record.means.get(record.task, {}).get(record.task, [])
    parts = list(last) if last.keys().isdisjoint(mean) else mean
    found = [last[part] for part in parts if part in last]
    return sum(found) / len(found) if found and len(found) == len(parts) else None
