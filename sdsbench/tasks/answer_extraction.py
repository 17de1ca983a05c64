"""Find the final answer in generated text. The functions accept any string and return an answer or None."""

from __future__ import annotations


def after_last_mark(text: str, mark: str) -> str | None:
    """The text after the last `mark`, or None if `mark` does not occur."""
    _, found, after = text.rpartition(mark)
    return after if found else None


def last_boxed(text: str) -> str | None:
    r"""The content of the last `\boxed{...}` or `\fbox{...}` with balanced braces, or None.

    >>> last_boxed(r"so $\boxed{\frac{1}{2}}$.")
    '\\frac{1}{2}'
    """
    start = max(text.rfind("\\boxed"), text.rfind("\\fbox"))
    if start < 0:
        return None
    if text.startswith("\\boxed ", start):  # `\boxed 5`, as a few MATH solutions write it
        return text[start + len("\\boxed ") :].split("$")[0].strip() or None
    opening = text.find("{", start)
    if opening < 0:
        return None
    depth = 0
    for position in range(opening, len(text)):
        depth += {"{": 1, "}": -1}.get(text[position], 0)
        if depth == 0:
            return text[opening + 1 : position]
    return None
