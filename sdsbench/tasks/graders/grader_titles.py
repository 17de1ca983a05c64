"""Short descriptions of the graders, for table footnotes."""

from __future__ import annotations

_LORA_SB = "LoRA-SB's published program"
_GSM8K = {
    "paper": _LORA_SB,
    "metamath": "MetaMath's published program",
    "strict": "lm-eval's strict-match",
    "flexible": "lm-eval's flexible-extract",
}
_MATH = {
    "paper": f"{_LORA_SB}, with antlr: LaTeX is parsed",
    "paper_no_antlr": f"{_LORA_SB}, without antlr, as its requirements install it",
    "metamath": "MetaMath's published program",
    "minerva": "lm-eval's exact match of minerva_math",
    "math_verify": "math-verify on the whole text",
    "math_verify_marked": "math-verify on the marked answer",
    "fixed": "this project's grader",
}
_COMMONSENSE = {"paper": "LLM-Adapters' published program", "lora_sb": f"{_LORA_SB}: in lower case"}
_PAIRS = {
    "exact": "equal but for white space",
    "contains": "the response occurs in the text",
    "numeric": "equal last numbers",
    "rouge_l": "ROUGE-L F of rouge_score",
    "chrf": "chrF of sacrebleu, mean over rows",
    "loss": "nats a token",
}
_OF = {"pairs": _PAIRS, "gsm8k": _GSM8K, "math": _MATH, "math500": _MATH}


def described(evaluation: str, scorer: str) -> str:
    """The grader's title in brackets; empty for a scorer whose name is enough (accuracy, likelihood)."""
    title = _OF.get(evaluation, _COMMONSENSE).get(scorer)
    return f" ({title})" if title else ""
