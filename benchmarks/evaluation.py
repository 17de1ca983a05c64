"""GSM8K questions answered by this project's generation and by lm-eval's HFLM with its defaults, on the same model.

    python -m benchmarks.evaluation --limit 200 --data-root FOLDER

Questions go in chunks, each answered by both one after the other; the same task object scores both. lm-eval's default
is a batch of 1; --peer-batch gives it another, or the best of several: the fastest on the first chunk.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks import report
from benchmarks.workloads import loaded_model
from sdsbench.data.sources import load
from sdsbench.evaluation.generation import Generator, Request
from sdsbench.runs.configuration.compose import compose_run
from sdsbench.tasks import base as tasks


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.evaluation", description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="smollm2_135m")
    parser.add_argument("--limit", type=int, default=200)
    parser.add_argument("--chunk", type=int, default=40, help="questions between two changes of the contestant")
    parser.add_argument("--max-new-tokens", type=int, default=256)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--peer-batch", default="1", help="lm-eval's default is 1; 4,8,16,32: the best of them")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--data-root", help="folder with the real GSM8K; without it this package's word problems")
    parser.add_argument("--out", default="benchmarks/results")
    given = parser.parse_args(arguments)
    torch.set_num_threads(given.threads)
    source = ["data.source=local", f"data.root={given.data_root}"] if given.data_root else ["data.source=embedded"]
    config = compose_run([f"model={given.model}", "method=lora", "task=gsm8k", *source])
    device = torch.device(given.device)
    model, tokenizer = loaded_model(given.model, getattr(torch, given.dtype))
    model.to(device)
    evaluation: Any = tasks.build(config.task).evaluations()[0]
    rows = load(evaluation.dataset, evaluation.split, config.data).take(range(given.limit))
    ours = _ours(model, tokenizer, given.batch)
    first = [evaluation.prompt(row) for row in list(rows)[: given.chunk]]
    peer_batch = _best(model, tokenizer, given.peer_batch, first, given.max_new_tokens, evaluation.stop)
    peer = _peer(model, tokenizer, peer_batch)
    taken: dict[str, list[float]] = {"sdsbench": [], "lm_eval": []}
    answers: dict[str, list[str]] = {"sdsbench": [], "lm_eval": []}
    for start in range(0, given.limit, given.chunk):
        chunk = list(rows)[start : start + given.chunk]
        prompts = [evaluation.prompt(row) for row in chunk]
        contestants = [("sdsbench", ours), ("lm_eval", peer)]
        for name, answer in contestants if (start // given.chunk) % 2 else contestants[::-1]:
            began = time.perf_counter()
            answers[name] += answer(prompts, given.max_new_tokens, evaluation.stop)
            taken[name].append(time.perf_counter() - began)
        print(start, {name: round(values[-1], 1) for name, values in taken.items()}, file=sys.stderr)
    ratio = statistics.median(b / a for a, b in zip(taken["sdsbench"], taken["lm_eval"], strict=True))
    lines = list(rows)
    same_text = sum(a == b for a, b in zip(answers["sdsbench"], answers["lm_eval"], strict=True))
    table = []
    for name in taken:
        verdicts = {
            scorer: [scored(row, text) for row, text in zip(lines, answers[name], strict=True)]
            for scorer, scored in evaluation.scorers.items()
        }
        table.append({"contestant": name, "seconds": round(sum(taken[name]), 2), "correct": verdicts})
    disagreements = sum(
        a != b for s in evaluation.scorers for a, b in zip(table[0]["correct"][s], table[1]["correct"][s], strict=True)
    )
    for row in table:
        row["correct"] = " ".join(f"{s}={sum(found)}" for s, found in row["correct"].items())
        row |= {"speed_ratio": round(ratio, 2), "questions": given.limit, "same_text": same_text}
        row |= {"different_verdicts": disagreements}
    facts = {
        "model": given.model, "max_new_tokens": given.max_new_tokens, "batch": given.batch,
        "dtype": given.dtype, "peer_batch": peer_batch, "peer_batch_among": given.peer_batch, "threads": given.threads,
        "data": "real" if given.data_root else "embedded",
    }  # fmt: skip
    where = "" if device.type == "cpu" else f"-{given.device}-{given.dtype}"
    peers = "best" if "," in given.peer_batch else peer_batch
    report.write(Path(given.out) / f"evaluation-{given.model}{where}-peer{peers}.csv", table, facts, device)
    print(report.table(table))
    return 0


def _best(model: Any, tokenizer: Any, sizes: str, prompts: Sequence[str], new_tokens: int, stop: Sequence[str]) -> int:
    """The peer's fastest batch size on some prompts."""
    taken: dict[int, float] = {}
    for size in map(int, sizes.split(",")) if "," in sizes else ():
        began = time.perf_counter()
        _peer(model, tokenizer, size)(prompts, new_tokens, stop)
        taken[size] = time.perf_counter() - began
    print({size: round(seconds, 1) for size, seconds in taken.items()}, file=sys.stderr)
    return min(taken, key=taken.__getitem__) if taken else int(sizes)


def _ours(model: Any, tokenizer: Any, batch: int) -> Any:
    def answer(prompts: Sequence[str], new_tokens: int, stop: Sequence[str]) -> list[str]:
        return Generator(model, tokenizer, batch).answer([Request(p, new_tokens, tuple(stop)) for p in prompts])

    return answer


def _peer(model: Any, tokenizer: Any, batch: int) -> Any:
    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM

    # The tokenizer's own setting of the beginning-of-sequence token.
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
