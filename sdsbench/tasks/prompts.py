"""The prompt templates. Training and evaluation of a task call the same function: there is no second spelling."""

from __future__ import annotations

ALPACA_HEAD = (
    "Below is an instruction that describes a task. Write a response that appropriately completes the request."
)

THINK = " Let's think step by step."
"""What the papers' math evaluation adds after the template; their training never shows it."""

STOP = ("### Instruction", "### Response")
"""A generation that starts a new turn has ended."""


def alpaca(instruction: str, response_lead: str = "") -> str:
    """The Alpaca template without an input field (Taori et al. 2023), ending in `### Response:` and `response_lead`.

    `response_lead` is what stands between the template and the first token of the response: nothing for the math
    tasks, a line break for LLM-Adapters' commonsense tasks, THINK for the papers' math evaluation.
    """
    return f"{ALPACA_HEAD}\n\n### Instruction:\n{instruction}\n\n### Response:{response_lead}"
