"""Time to answer GSM8K questions, by this project's generation and by lm-eval's HFLM, with the same model.

    python -m benchmarks.evaluation --limit 200 --data-root FOLDER
    python -m benchmarks.evaluation --model llama3.2_3b --random --device cuda --dtype bfloat16 --peer-batch 16,64

Questions are answered in chunks, each chunk by all contestants one after the other; the same task object scores all
answers. lm-eval's default batch size is 1; --peer-batch sets another, or several, of which the fastest on the first
chunk is used, and --batch likewise ours. On CUDA this project answers twice: with plain steps, whose kernels are
launched one by one, and with captured ones (--steps). --random: random weights in the shapes of a model, with micro's
tokenizer, if its weights are not available; nearly all answers then have full length. --train: fine-tune the model
first, so that answers end where a trained model's do, which is where a batch of the peer waits for its longest answer.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

from benchmarks import report
from benchmarks.options import parse_options
from benchmarks.workloads import loaded_model, random_model
from sdsbench.data.sources import load
from sdsbench.evaluation.generation import Generator, Request
from sdsbench.evaluation.static_step import Steps
from sdsbench.runs.configuration.compose import compose_run
from sdsbench.runs.prepare import ready_to_train
from sdsbench.tasks import base as tasks

PEER = "lm_eval"
Answer = Callable[[Sequence[str], int, Sequence[str]], list[str]]
"""The answers to prompts, given the largest number of new tokens and the stop texts."""
Maker = Callable[[int], Answer]
"""A contestant at a batch size."""


def main(arguments: Sequence[str] | None = None) -> int:
    given = parse_options(
        arguments, "evaluation", __doc__, model="smollm2_135m", limit=200,
        chunk=(40, "questions that a contestant answers at a time"), max_new_tokens=256,
        batch=("32", "our batch size; of several (16,32,64) the fastest is used"),
        peer_batch=("1", "lm-eval's default is 1; of several (4,8,16,32) the fastest is used"),
        steps=(None, "our decoding steps: plain, captured, or both (plain,captured; needs CUDA)"),
        random=(False, "random weights in the shapes of --model"),
        train=(0, "steps of full fine-tuning before, each of 8 rows"), lr=(1e-4, "of --train"), device="cpu",
        dtype="float32", threads=2,
        data_root=(None, "folder with the real GSM8K; default: generated word problems"),
    )  # fmt: skip
    torch.set_num_threads(given.threads)
    source = ["data.source=local", f"data.root={given.data_root}"] if given.data_root else ["data.source=embedded"]
    config = compose_run([f"model={given.model}", "method=lora", "task=gsm8k", *source])
    device, dtype = torch.device(given.device), getattr(torch, given.dtype)
    model, tokenizer = loaded_model("micro" if given.random else given.model, dtype)
    model = random_model(given.model, dtype, device) if given.random else model.to(device)
    if given.train:
        model = _trained(given, source)
    evaluation: Any = tasks.build(config.task).evaluations()[0]
    rows = list(load(evaluation.dataset, evaluation.split, config.data).take(range(given.limit)))
    first = [evaluation.prompt(row) for row in rows[: given.chunk]]
    steps: Sequence[Any] = (given.steps or ("plain,captured" if device.type == "cuda" else "plain")).split(",")
    makers = {f"sdsbench, {one} steps": partial(_ours, model, tokenizer, one) for one in steps}
    makers[PEER] = partial(_peer, model, tokenizer)
    batches = {
        name: _fastest_batch_size(
            make, given.peer_batch if name == PEER else given.batch, first, given.max_new_tokens, evaluation.stop
        )
        for name, make in makers.items()
    }
    contestants = {name: make(batches[name]) for name, make in makers.items()}
    taken: dict[str, list[float]] = {name: [] for name in contestants}
    answers: dict[str, list[str]] = {name: [] for name in contestants}
    for number, start in enumerate(range(0, given.limit, given.chunk)):
        prompts = [evaluation.prompt(row) for row in rows[start : start + given.chunk]]
        for name in list(contestants)[:: 1 if number % 2 else -1]:
            began = time.perf_counter()
            answers[name] += contestants[name](prompts, given.max_new_tokens, evaluation.stop)
            taken[name].append(time.perf_counter() - began)
        print(start, {name: round(values[-1], 1) for name, values in taken.items()}, file=sys.stderr)
    verdicts = {
        name: {
            scorer: [scored(row, text) for row, text in zip(rows, texts, strict=True)]
            for scorer, scored in evaluation.scorers.items()
        }
        for name, texts in answers.items()
    }
    table = [
        {
            "contestant": name,
            "seconds": round(sum(taken[name]), 2),
            "correct": " ".join(f"{scorer}={sum(found)}" for scorer, found in verdicts[name].items()),
            "speed_ratio": round(statistics.median(b / a for a, b in zip(taken[name], taken[PEER], strict=True)), 2),
            "batch": batches[name],
            "questions": given.limit,
            "same_text": sum(a == b for a, b in zip(answers[name], answers[PEER], strict=True)),
            "different_verdicts": sum(
                a != b for s in evaluation.scorers for a, b in zip(verdicts[name][s], verdicts[PEER][s], strict=True)
            ),
        }
        for name in contestants
    ]
    facts = {
        "model": given.model, "max_new_tokens": given.max_new_tokens, "dtype": given.dtype,
        "batch_among": given.batch, "peer_batch_among": given.peer_batch, "threads": given.threads,
        "data": "real" if given.data_root else "embedded", "weights": "random" if given.random else "pretrained",
        "trained_steps": given.train,
    }  # fmt: skip
    where = "" if device.type == "cpu" else f"-{given.device}-{given.dtype}"
    peers = "best" if "," in given.peer_batch else given.peer_batch
    trained = "-trained" if given.train else ""
    report.write(Path(given.out) / f"evaluation-{given.model}{trained}{where}-peer{peers}.csv", table, facts, device)
    print(report.table(table))
    return 0


def _trained(given: argparse.Namespace, source: Sequence[str]) -> Any:
    """The model after --train optimizer steps on the training rows; its weights are plain, so the peer can use it."""
    words = [f"model={given.model}", "method=full_ft", "task=gsm8k", f"train.max_steps={given.train}", *source]
    words += [f"train.lr={given.lr}", f"device={given.device}", f"dtype={given.dtype}", f"threads={given.threads}"]
    training, state = ready_to_train(compose_run(words))
    training.run(state, lambda _: None)
    return training.model


def _fastest_batch_size(make: Maker, sizes: str, prompts: Sequence[str], new_tokens: int, stop: Sequence[str]) -> int:
    """A contestant's fastest batch size among comma-separated `sizes`, measured on `prompts`, if there are several."""
    taken: dict[int, float] = {}
    for size in map(int, sizes.split(",")) if "," in sizes else ():
        began = time.perf_counter()
        make(size)(prompts, new_tokens, stop)
        taken[size] = time.perf_counter() - began
    print({size: round(seconds, 1) for size, seconds in taken.items()}, file=sys.stderr)
    return min(taken, key=taken.__getitem__) if taken else int(sizes)


def _ours(model: Any, tokenizer: Any, steps: Steps, batch: int) -> Answer:
    generator = Generator(model, tokenizer, batch, steps=steps)

    def answer(prompts: Sequence[str], new_tokens: int, stop: Sequence[str]) -> list[str]:
        return generator.answer([Request(p, new_tokens, tuple(stop)) for p in prompts])

    return answer


def _peer(model: Any, tokenizer: Any, batch: int) -> Answer:
    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM

    # The beginning-of-sequence token follows the tokenizer's own setting, as in this project's prompts.
    lm = HFLM(pretrained=model, tokenizer=tokenizer, batch_size=batch, device=str(model.device))

    def answer(prompts: Sequence[str], new_tokens: int, stop: Sequence[str]) -> list[str]:
        settings = {"until": list(stop), "max_gen_toks": new_tokens, "do_sample": False}
        requests = [
            Instance(request_type="generate_until", doc={}, arguments=(prompt, dict(settings)), idx=i)
            for i, prompt in enumerate(prompts)
        ]
        return lm.generate_until(requests, disable_tqdm=True)

    return answer


if __name__ == "__main__":
    sys.exit(main())
