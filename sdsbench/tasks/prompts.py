"""The prompt templates. Training and evaluation of a task call the same function: there is no second spelling."""

from __future__ import annotations

_DESCRIBED, _ASKED = (
    "Below is an instruction that describes a task",
    "Write a response that appropriately completes the request.",
)
ALPACA_HEAD = f"{_DESCRIBED}. {_ASKED}"
ALPACA_HEAD_WITH_INPUT = f"{_DESCRIBED}, paired with an input that provides further context. {_ASKED}"

THINK = " Let's think step by step."
"""What the papers' math evaluation adds after the template; their training never shows it."""

STOP = ("### Instruction", "### Response")
"""A generation that starts a new turn has ended."""


def alpaca(instruction: str, response_lead: str = "", given: str = "") -> str:
    """The Alpaca template (Taori et al. 2023), ending in `### Response:` and `response_lead`.

    Its form with an input field, which holds `given`, is taken where that is not empty.

    `response_lead` is what stands between the template and the first token of the response: nothing for the math
    tasks, a line break for LLM-Adapters' commonsense tasks, THINK for the papers' math evaluation.
    """
    head = ALPACA_HEAD_WITH_INPUT if given else ALPACA_HEAD
    field = f"### Input:\n{given}\n\n" if given else ""
    return f"{head}\n\n### Instruction:\n{instruction}\n\n{field}### Response:{response_lead}"


def indented_alpaca(instruction: str, after_head: str, blank_line: str) -> str:
    """The Alpaca template as LLM-Adapters' code writes it, inside an indented text of 16 spaces.

    What follows the first sentences and what the blank line before `### Response:` holds differ there between training
    and test, and between copies of that code.
    """
    indent = " " * 16
    asked = f"{indent}### Instruction:\n{indent}{instruction}\n{blank_line}\n{indent}### Response:\n{indent}"
    return f"{ALPACA_HEAD}{after_head}\n\n{asked}"
