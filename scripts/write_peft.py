"""Write docs/peft.md: measurements of every tuner type of the installed peft library.

python scripts/write_peft.py kill KILLED                # start, kill and resume every run of sweep=peft_types
python scripts/write_peft.py types TYPES                # measure every type, a line of the file for each
python scripts/write_peft.py page WHOLE KILLED TYPES    # write the page; WHOLE: the same runs, uninterrupted
"""

from __future__ import annotations

import copy
import os
import signal
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from sdsbench.checks.forward import change_by_packing, change_of_past, largest_difference, logits_of
from sdsbench.core import step_log
from sdsbench.core.errors import ConfigError, Refused
from sdsbench.core.record import Record
from sdsbench.core.run_folder import read_record
from sdsbench.methods.attach import attach
from sdsbench.methods.base import build, lookup
from sdsbench.methods.export import export_peft
from sdsbench.methods.named_tensors import FrozenAdditions, named_tensors
from sdsbench.methods.peft import peft_types
from sdsbench.models.load import load
from sdsbench.runs.configuration.compose import compose_run
from sdsbench.runs.families import TextFamily
from sdsbench.runs.prepare import ready_to_train
from sdsbench.sweeps.blocks import define
from sdsbench.sweeps.expand import product
from sdsbench.training.dropout import Dropout
from sdsbench.training.loop import Training
from sdsbench.training.optimizer import FlatOptimizer
from sdsbench.training.parameters import optimizer_groups
from sdsbench.training.state import TrainState

PAGE = Path(__file__).parents[1] / "docs" / "peft.md"
STEPS = 4
LIKE = ["model=micro", "data.source=embedded", "method=lora", "data.train_limit=64", "threads=1", "train.batch_size=4"]
PLACED = ["threads=1", "train.checkpoint_every=5"]
KILL_AFTER = 8  # steps
SHAPE_OPTIONS = {"c3a": {"block_size": 64}, "vblora": {"vector_length": 64}}
"""Options of types whose default block does not divide the widths of micro's layers (128 and 384)."""
LAYER_OPTIONS = {
    "ln_tuning": {"target_modules": None},
    "trainable_tokens": {"target_modules": ["embed_tokens"], "token_indices": [1, 2, 3]},
}
"""Options of types that are not for linear layers."""


def main(words: Sequence[str]) -> None:
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    if words[:1] == ["kill"] and len(words) == 2:
        kill_and_resume(Path(words[1]))
    elif words[:1] == ["types"] and len(words) == 2:
        with Path(words[1]).open("w") as file:
            for row in _type_rows():
                print(row, file=file, flush=True)
    elif words[:1] == ["page"] and len(words) == 4:
        PAGE.write_text(page(*map(Path, words[1:])))
    else:
        raise SystemExit(__doc__)


def kill_and_resume(root: Path) -> None:
    """Kill every run of the sweep with kill -9 after KILL_AFTER steps, then run the same command to its end."""
    for block in define(["sweep=peft_types"]).blocks:
        for point in product(block):
            overrides = [f"{key}={value}" for key, value in point.items()]
            command = [sys.executable, "-m", "sdsbench", *overrides, *PLACED, f"output_root={root}"]
            done = set(root.glob("*/record.json"))
            process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
            while process.poll() is None and not any(
                len(step_log.read(path)) >= KILL_AFTER for path in set(root.glob("*/metrics.jsonl")) - _logs(done)
            ):
                time.sleep(0.02)
            os.kill(process.pid, signal.SIGKILL)
            process.wait()
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def _logs(records: set[Path]) -> set[Path]:
    return {path.with_name("metrics.jsonl") for path in records}


def page(whole: Path, killed: Path, types: Path) -> str:
    text = Path(__file__).with_name("peft_page.md").read_text()
    parts = {
        "version": version("peft"),
        "made": f"The runs of the sweep are of commit {_commits(whole)}.",
        "sweep": "\n".join(_sweep_rows(whole, killed)),
        "types": types.read_text().rstrip(),
        "refused": "\n".join(f"| `{kind}` | {reason} |" for kind, reason in peft_types().items() if reason),
    }
    for name, part in parts.items():
        text = text.replace(f"<!-- {name} -->", part)
    return text


def _records(root: Path) -> dict[str, tuple[Path, Record]]:
    found = ((path.parent, read_record(path)) for path in sorted(root.glob("*/record.json")))
    return {record.config["method"]["type"]: (folder, record) for folder, record in found}


def _commits(root: Path) -> str:
    """The commits whose code made the runs, comma-separated; later changes were not measured."""
    made = {p.git_commit for _, record in _records(root).values() if (p := record.provenance)}
    return ", ".join(sorted((commit or "unknown")[:7] for commit in made))


def _losses(folder: Path) -> list[float]:
    return [line["loss"] for line in step_log.read(folder / "metrics.jsonl") if line["kind"] == "train"]


def _sweep_rows(whole: Path, killed: Path) -> Iterator[str]:
    others = _records(killed)
    for kind, (folder, record) in sorted(_records(whole).items()):
        again, resumed = others[kind]
        assert record.parameters and record.losses and record.memory and len(resumed.attempts) > 1
        score = 100 * next(score.value for score in record.scores if score.headline)
        equal = _losses(folder) == _losses(again) and record.scores == resumed.scores
        yield (
            f"| `{kind}` | {record.parameters.adapter:,} | {_number(record.facts['start_difference'])} | "
            f"{record.losses.first:.4f} | {record.losses.last:.4f} | {score:.0f} | {record.seconds.train:.0f} | "
            f"{record.memory.peak_bytes / 2**30:.2f} | {resumed.attempts[-1].from_step} | {'yes' if equal else 'NO'} |"
        )


def _type_rows() -> Iterator[str]:
    training, _ = ready_to_train(compose_run([*LIKE, f"train.max_steps={STEPS}"]))
    base = load(compose_run(["model=micro"]).model, torch.float32, None).model
    for kind, reason in peft_types().items():
        if reason is None:
            yield f"| `{kind}` | {' | '.join(_type_columns(kind, training, base))} |"


def _type_columns(kind: str, training: Training, base: Any) -> list[str]:
    """The columns of one type: trained parameters, start, resume, export, past, packed, plain weights."""
    options = SHAPE_OPTIONS.get(kind) or LAYER_OPTIONS.get(kind)
    try:
        whole, state = _prepared(kind, options, training, base, seed=0)
    except ConfigError as error:
        return [f"refused: {error.problems[0].advice}", *[""] * 6]
    model = whole.model
    trained = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    ids = torch.tensor([training.examples[0].ids[:32]])
    start = largest_difference(logits_of(model, ids), logits_of(base, ids))
    losses = _train(whole, state, STEPS)
    first, half = _prepared(kind, options, training, base, seed=0)
    losses_again = _train(first, half, STEPS // 2)
    saved = {name: tensor.clone() for name, tensor in half.tensors().items()}, copy.deepcopy(half.facts())
    other, rest = _prepared(kind, options, training, base, seed=1)
    rest.load(*saved)
    losses_again += _train(other, rest, STEPS)
    past = change_of_past(model, ids[0].tolist())
    return [
        f"{trained:,}", _number(start), "yes" if losses == losses_again else "NO", _exported(state, model, base, ids),
        _number(past), _number(change_by_packing(whole, whole.examples[:3])), _folded(state, model, ids),
    ]  # fmt: skip


def _prepared(kind: str, options: Any, like: Training, base: Any, seed: int) -> tuple[Training, TrainState]:
    model, method = copy.deepcopy(base), build(lookup("peft")[1](name="peft", type=kind, options=options))  # type: ignore[call-arg]
    tensors = named_tensors(model)
    layers = attach(model, method, seed)
    TextFamily(None, None, 0).unfreeze_head(model)  # refuses adapters on the output layer, as every run does
    dropout = Dropout(model, 0)
    training = Training(model, like.objective, like.examples, like.order, like.config, like.device, dropout)
    optimizer = FlatOptimizer(optimizer_groups(model, method, [], like.config), like.config)
    return training, TrainState(optimizer, method, layers, frozen=FrozenAdditions(model, tensors))


def _train(training: Training, state: TrainState, until: int) -> list[float]:
    training.model.train()
    losses = []
    while state.step < until:
        losses.append(training.step(state).loss)
    training.model.eval()
    return losses


def _exported(state: TrainState, model: Any, base: Any, ids: torch.Tensor) -> str:
    from peft import PeftModel

    with tempfile.TemporaryDirectory() as folder:
        export_peft(Path(folder), {}, state.method, None, "CAUSAL_LM")
        try:
            loaded = PeftModel.from_pretrained(copy.deepcopy(base), folder).eval()
        except Exception as error:
            return f"{type(error).__name__}: {' '.join(str(error).split())[:80]}"
        return _number(largest_difference(logits_of(loaded, ids), logits_of(model, ids)))


def _folded(state: TrainState, model: Any, ids: torch.Tensor) -> str:
    before = logits_of(model, ids)
    try:
        return _number(largest_difference(logits_of(state.method.fold(model), ids), before))
    except Refused:
        return "peft cannot"


def _number(value: float) -> str:
    return "0" if value == 0 else f"{value:.1e}"


if __name__ == "__main__":
    main(sys.argv[1:])
