"""The prompt templates. Training and evaluation of a task call the same function, so their prompts cannot differ."""

from __future__ import annotations

_DESCRIBED, _ASKED = (
    "Below is an instruction that describes a task",
    "Write a response that appropriately completes the request.",
)
ALPACA_HEAD = f"{_DESCRIBED}. {_ASKED}"
ALPACA_HEAD_WITH_INPUT = f"{_DESCRIBED}, paired with an input that provides further context. {_ASKED}"

THINK = " Let's think step by step."
"""Text that the papers' math evaluation appends to the template, although their training prompts do not have it."""

STOP = ("### Instruction", "### Response")
"""A generation that starts a new turn has ended."""


def alpaca(instruction: str, response_lead: str = "", given: str = "") -> str:
    """The Alpaca template (Taori et al. 2023), ending in `### Response:` and `response_lead`.

    If `given` is not empty, the template's form with an input field is used, and `given` is its input.

    `response_lead` is what stands between the template and the first token of the response: nothing for the math
    tasks, a line break for LLM-Adapters' commonsense tasks, THINK for the papers' math evaluation.
    """
    head = ALPACA_HEAD_WITH_INPUT if given else ALPACA_HEAD
    field = f"### Input:\n{given}\n\n" if given else ""
    return f"{head}\n\n### Instruction:\n{instruction}\n\n{field}### Response:{response_lead}"


def indented_alpaca(instruction: str, after_head: str, blank_line: str) -> str:
    """The Alpaca template as LLM-Adapters' code writes it, inside an indented text of 16 spaces.

    Its white space after the first sentences and in the blank line before `### Response:` differs between training and
    test code, and between copies of that code; the arguments set it.
    """
    indent = " " * 16
    asked = f"{indent}### Instruction:\n{indent}{instruction}\n{blank_line}\n{indent}### Response:\n{indent}"
    return f"{ALPACA_HEAD}{after_head}\n\n{asked}"
