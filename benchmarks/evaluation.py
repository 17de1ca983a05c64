"""Time to answer GSM8K questions, by this project's generation and by lm-eval's HFLM, with the same model.

    python -m benchmarks.evaluation --limit 200 --data-root FOLDER
    python -m benchmarks.evaluation --model llama3.2_3b --random --device cuda --dtype bfloat16 --peer-batch 16,64

Questions are answered in chunks, each chunk by all contestants one after the other; the same task object scores all
answers. lm-eval's default batch size is 1; --peer-batch sets another, or several, of which the fastest on the first
chunk is used. On CUDA this project answers twice: with plain steps, whose kernels are launched one by one, and with
captured ones (--steps). --random: random weights in the shapes of a model, with micro's tokenizer, if its weights are
not available; nearly all answers then have full length.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Sequence
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
from sdsbench.tasks import base as tasks

PEER = "lm_eval"


def main(arguments: Sequence[str] | None = None) -> int:
    given = parse_options(
        arguments, "evaluation", __doc__, model="smollm2_135m", limit=200,
        chunk=(40, "questions that a contestant answers at a time"), max_new_tokens=256, batch=32,
        peer_batch=("1", "lm-eval's default is 1; of several (4,8,16,32) the fastest is used"),
        steps=(None, "our decoding steps: plain, captured, or both (plain,captured; needs CUDA)"),
        random=(False, "random weights in the shapes of --model"), device="cpu", dtype="float32", threads=2,
        data_root=(None, "folder with the real GSM8K; default: generated word problems"),
    )  # fmt: skip
    torch.set_num_threads(given.threads)
    source = ["data.source=local", f"data.root={given.data_root}"] if given.data_root else ["data.source=embedded"]
    config = compose_run([f"model={given.model}", "method=lora", "task=gsm8k", *source])
    device, dtype = torch.device(given.device), getattr(torch, given.dtype)
    model, tokenizer = loaded_model("micro" if given.random else given.model, dtype)
    model = random_model(given.model, dtype, device) if given.random else model.to(device)
    evaluation: Any = tasks.build(config.task).evaluations()[0]
    rows = list(load(evaluation.dataset, evaluation.split, config.data).take(range(given.limit)))
    first = [evaluation.prompt(row) for row in rows[: given.chunk]]
    peer_batch = _fastest_batch_size(model, tokenizer, given.peer_batch, first, given.max_new_tokens, evaluation.stop)
    steps: Sequence[Any] = (given.steps or ("plain,captured" if device.type == "cuda" else "plain")).split(",")
    contestants = {f"sdsbench, {one} steps": _ours(model, tokenizer, given.batch, one) for one in steps}
    contestants[PEER] = _peer(model, tokenizer, peer_batch)
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
            "questions": given.limit,
            "same_text": sum(a == b for a, b in zip(answers[name], answers[PEER], strict=True)),
            "different_verdicts": sum(
                a != b for s in evaluation.scorers for a, b in zip(verdicts[name][s], verdicts[PEER][s], strict=True)
            ),
        }
        for name in contestants
    ]
    facts = {
        "model": given.model, "max_new_tokens": given.max_new_tokens, "batch": given.batch,
        "dtype": given.dtype, "peer_batch": peer_batch, "peer_batch_among": given.peer_batch, "threads": given.threads,
        "data": "real" if given.data_root else "embedded", "weights": "random" if given.random else "pretrained",
    }  # fmt: skip
    where = "" if device.type == "cpu" else f"-{given.device}-{given.dtype}"
    peers = "best" if "," in given.peer_batch else peer_batch
    report.write(Path(given.out) / f"evaluation-{given.model}{where}-peer{peers}.csv", table, facts, device)
    print(report.table(table))
    return 0


def _fastest_batch_size(
    model: Any, tokenizer: Any, sizes: str, prompts: Sequence[str], new_tokens: int, stop: Sequence[str]
) -> int:
    """The peer's fastest batch size among comma-separated `sizes`, measured on `prompts`; a single one is not tried."""
    taken: dict[int, float] = {}
    for size in map(int, sizes.split(",")) if "," in sizes else ():
        began = time.perf_counter()
        _peer(model, tokenizer, size)(prompts, new_tokens, stop)
        taken[size] = time.perf_counter() - began
    print({size: round(seconds, 1) for size, seconds in taken.items()}, file=sys.stderr)
    return min(taken, key=taken.__getitem__) if taken else int(sizes)


def _ours(model: Any, tokenizer: Any, batch: int, steps: Steps) -> Any:
    generator = Generator(model, tokenizer, batch, steps=steps)

    def answer(prompts: Sequence[str], new_tokens: int, stop: Sequence[str]) -> list[str]:
        return generator.answer([Request(p, new_tokens, tuple(stop)) for p in prompts])

    return answer


def _peer(model: Any, tokenizer: Any, batch: int) -> Any:
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
