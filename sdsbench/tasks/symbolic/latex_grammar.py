"""Make sympy's LaTeX grammar work with the antlr version that Hydra requires.

sympy ships its grammar compiled for antlr 4.11 and refuses any other; Hydra's OmegaConf needs antlr 4.9. They serialise
the compiled grammar differently: 4.10 and later as a list of numbers (version 4), 4.9 as a text whose characters are
the numbers plus 2, after a format identifier (version 3). The tables are the same, so it suffices to make the
deserialiser of 4.9 accept the newer format.
"""

from __future__ import annotations

from typing import Any

NEEDED = "4.11"  # what sympy asks for


def install() -> None:
    """Make sympy.parsing.latex.parse_latex work in this process, whichever antlr 4.9 to 4.13 it has."""
    from antlr4.atn.ATNDeserializer import ATNDeserializer

    if hasattr(ATNDeserializer, "checkUUID"):  # 4.9: later readers know no format identifier
        _read_version_4(ATNDeserializer)
    from sympy.parsing.latex import _parse_latex_antlr

    _parse_latex_antlr.version = lambda _: NEEDED


def _read_version_4(reader: Any) -> None:
    from antlr4.atn import ATNDeserializer as module

    reset, check_version, check_identifier = reader.reset, reader.checkVersion, reader.checkUUID

    def reset_either(self: Any, data: str | list[int]) -> None:
        if isinstance(data, str):
            reset(self, data)
        else:
            self.data, self.pos = data, 0

    def check_either_version(self: Any) -> None:
        if self.data[0] == 4:
            self.readInt()
        else:
            check_version(self)

    def check_either_identifier(self: Any) -> None:
        if self.data[0] == 4:
            self.uuid = module.BASE_SERIALIZED_UUID  # one list of character sets follows, as in version 4
        else:
            check_identifier(self)

    reader.reset, reader.checkVersion, reader.checkUUID = reset_either, check_either_version, check_either_identifier
