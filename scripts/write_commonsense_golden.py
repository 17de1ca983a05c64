"""Write tests/tasks/golden/commonsense_generations.jsonl: answers of smollm2_135m to real rows, and their verdicts.

    python scripts/write_commonsense_golden.py FOLDER      # data.root with the eight test sets

Check the verdicts by hand before committing them: they come from the same grader that the test compares with them.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch

from sdsbench.core.files import write_atomic
from sdsbench.data.sources import load
from sdsbench.evaluation.generation import Generator, Request
from sdsbench.models.load import load as load_model
from sdsbench.runs.configuration.compose import compose_run
from sdsbench.tasks import base as tasks

PATH = Path(__file__).parent.parent / "tests/tasks/golden/commonsense_generations.jsonl"
ROWS = 5  # of each benchmark
TOKENS = 24


def main() -> int:
    config = compose_run(
        ["model=smollm2_135m", "task=commonsense", "data.source=local", f"data.root={sys.argv[1]}", "method=lora"]
    )
    loaded = load_model(config.model, torch.float32)
    generator = Generator(loaded.model, loaded.tokenizer, 8)
    lines = []
    for evaluation in tasks.build(config.task).evaluations():
        found: Any = evaluation
        rows = list(load(found.dataset, "test", config.data).take(range(ROWS)))
        texts = generator.answer([Request(found.prompt(row), TOKENS, tuple(found.stop)) for row in rows])
        for number, (row, text) in enumerate(zip(rows, texts, strict=True)):
            case = {"benchmark": found.name, "row": number, "answer": row["answer"], "text": text}
            lines.append(json.dumps(case | {"paper": found.scorers["paper"](row, text)}, ensure_ascii=False))
    write_atomic(PATH, "\n".join(lines) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
