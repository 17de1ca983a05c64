"""The hash of code depends on the syntax trees of all reachable modules, and on nothing else."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest

from sdsbench.core import source_hash

CODE = '''"""A module."""
from __future__ import annotations
from typing import TYPE_CHECKING
import package_a.helper
from .relative import VALUE
if TYPE_CHECKING:
    from package_a import typing_only

def scale(x):
    """Doubles."""
    # twice
    return 2 * x
'''


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An importable package whose module `method` imports `helper` and `relative`, but not `other`."""
    folder = tmp_path / "package_a"
    folder.mkdir()
    (folder / "__init__.py").write_text("")
    (folder / "method.py").write_text(CODE)
    (folder / "helper.py").write_text("VALUE = 1\n")
    (folder / "typing_only.py").write_text("raise RuntimeError('never imported')\n")
    (folder / "relative.py").write_text("VALUE = 1\n")
    (folder / "other.py").write_text("VALUE = 1\n")
    monkeypatch.syspath_prepend(tmp_path)
    for function in (source_hash.source_file, source_hash._search_locations):
        function.cache_clear()
    return folder


def hash_of_method() -> str:
    return source_hash.hash_of(source_hash.reachable(["package_a.method"], lambda name: name.startswith("package_a")))


def test_only_reachable_modules_are_hashed_and_none_is_imported(package: Path) -> None:
    found = source_hash.reachable(["package_a.method"], lambda name: name.startswith("package_a"))
    assert list(found) == ["package_a.helper", "package_a.method", "package_a.relative"]
    assert "package_a" not in sys.modules, "nothing was imported"


@pytest.mark.parametrize(
    ("file", "old", "new", "changes"),
    [
        ("method.py", "# twice", "# two times\n    # x", False),
        ("method.py", '"""Doubles."""', '"""Multiplies by two."""', False),
        ("method.py", "2 * x", "(2 * x)", False),
        ("method.py", "2 * x", "3 * x", True),
        ("method.py", "2 * x", "x * 2", True),
        ("helper.py", "1", "2", True),
        ("relative.py", "1", "2", True),
        ("other.py", "1", "2", False),
        ("typing_only.py", "never", "not", False),
    ],
)
def test_hash_changes_with_code_but_not_with_comments_or_docstrings(
    package: Path, file: str, old: str, new: str, changes: bool
) -> None:
    before = hash_of_method()
    path = package / file
    path.write_text(path.read_text().replace(old, new) + "\n")
    assert (hash_of_method() != before) is changes


def test_hash_ignores_the_empty_constant_that_python_3_12_adds_to_formats(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "module.py"
    file.write_text('def wide(x: str, width: int) -> str:\n    return f"{x:{width}}"\n')

    def hash_with_constants(number_at_end: int) -> str:
        tree = ast.parse(file.read_text())
        for node in ast.walk(tree):
            if isinstance(node, ast.FormattedValue) and isinstance(node.format_spec, ast.JoinedStr):
                values = [value for value in node.format_spec.values if not isinstance(value, ast.Constant)]
                node.format_spec.values = values + [ast.Constant("") for _ in range(number_at_end)]
        monkeypatch.setattr(source_hash, "_parsed", lambda path, changed: tree)
        source_hash._tree_hash.cache_clear()
        return source_hash.hash_of({"module": file})

    assert hash_with_constants(0) == hash_with_constants(1)
