"""A module's name has one meaning: two modules of one name are a command and what it calls, or are listed here."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

from sdsbench.core.package import PACKAGE
from sdsbench.core.source_hash import imports_of, source_file

ALLOWED = {
    "base": "the base class and the registry of the folder's things, methods or tasks",
    "export": "the command, the run that it exports, and the method's part in that",
}
"""Other names that several modules have, with the one meaning that these share."""


def modules() -> Iterator[str]:
    """Every module and package below sdsbench, by full name."""
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
        parts = parts[:-1] if parts[-1] == "__init__" else parts
        if len(parts) > 1:
            yield ".".join(parts)


def of_one_name() -> dict[str, list[str]]:
    named = defaultdict(list)
    for module in modules():
        named[module.rpartition(".")[2]].append(module)
    return {name: found for name, found in named.items() if len(found) > 1}


def is_called_by_its_command(name: str, found: list[str]) -> bool:
    """Whether the modules are the command sdsbench/cli/NAME.py and one module (or package) that it imports from."""
    command = f"sdsbench.cli.{name}"
    if command not in found or len(found) != 2:
        return False
    (other,) = (module for module in found if module != command)
    path = source_file(command)
    assert path is not None
    return any(imported == other or imported.startswith(f"{other}.") for imported in imports_of(command, path))


def is_main_module_of_its_package(name: str, found: list[str]) -> bool:
    return len(found) == 2 and f"{min(found, key=len)}.{name}" in found


def test_no_name_of_a_module_has_two_meanings() -> None:
    two = {
        name: found
        for name, found in of_one_name().items()
        if not (name in ALLOWED or is_called_by_its_command(name, found) or is_main_module_of_its_package(name, found))
    }
    assert two == {}, "give one of each a name that says what it is"


def test_the_list_holds_no_name_that_is_not_needed() -> None:
    assert ALLOWED.keys() <= of_one_name().keys()
