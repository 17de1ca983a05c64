"""Heavy packages that are imported on first use.

Configuration classes live beside the code that they configure; a bad configuration must be reported within
seconds and `--help` within one. So files that hold both write `from sdsbench.core.lazy import torch`, and torch is
imported at the first access to one of its attributes. Type checkers see the real module.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
else:

    class _LazyModule:
        def __init__(self, name: str) -> None:
            self._name = name

        def __getattr__(self, attribute: str) -> Any:
            found = getattr(importlib.import_module(self._name), attribute)
            setattr(self, attribute, found)  # later accesses find it without this method
            return found

    torch = _LazyModule("torch")

__all__ = ["torch"]
