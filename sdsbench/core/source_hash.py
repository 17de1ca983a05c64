"""Hashes of Python code by its syntax tree, without comments, docstrings and layout.

A part of the code is a set of modules and everything that they import, directly or through others, inside the packages
that are looked at. So a hash changes only if code that the part can reach changes.
"""

from __future__ import annotations

import ast
import hashlib
import importlib.util
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from pathlib import Path


def reachable(modules: Iterable[str], follow: Callable[[str], bool]) -> dict[str, Path]:
    """Source files by module name: the given modules and what they import, as far as `follow(name)` is true.

    Imports below `if TYPE_CHECKING:` are not followed, since nothing that runs depends on them, nor is the __init__
    of a package that only surrounds a module. Modules without a source file (built in, compiled) are left out.
    """
    found: dict[str, Path] = {}
    ahead = [name for name in modules if follow(name)]
    while ahead:
        name = ahead.pop()
        path = source_file(name)
        if name in found or path is None:
            continue
        found[name] = path
        ahead += [imported for imported in imports_of(name, path) if follow(imported) and imported not in found]
    return dict(sorted(found.items()))


def hash_of(files: dict[str, Path]) -> str:
    """sha256 over module names and syntax trees, in the order of the names."""
    digest = hashlib.sha256()
    for name, path in sorted(files.items()):
        digest.update(f"{name}\0{_tree_hash(path, _changed(path))}\0".encode())
    return digest.hexdigest()


@lru_cache(maxsize=4096)
def source_file(module: str) -> Path | None:
    """The .py file of a module, found without importing it or its parents; None where there is none."""
    top, *parts = module.split(".")
    for folder in _search_locations(top):
        path = Path(folder).joinpath(*parts)
        for candidate in (path / "__init__.py", path.with_name(f"{path.name}.py")):
            if candidate.is_file():
                return candidate
    spec = importlib.util.find_spec(top) if not parts else None
    return Path(spec.origin) if spec and spec.origin and spec.origin.endswith(".py") else None


@lru_cache(maxsize=256)
def _search_locations(package: str) -> tuple[str, ...]:
    spec = importlib.util.find_spec(package)
    return tuple(spec.submodule_search_locations or ()) if spec else ()


def imports_of(module: str, path: Path) -> tuple[str, ...]:
    """Absolute names of the modules that a file imports; `from package import name` gives both possible modules."""
    return _imports(module, path, _changed(path))


def _changed(path: Path) -> int:
    return path.stat().st_mtime_ns


@lru_cache(maxsize=4096)
def _parsed(path: Path, _changed: int) -> ast.Module:
    return ast.parse(path.read_bytes(), filename=str(path))


@lru_cache(maxsize=4096)
def _imports(module: str, path: Path, changed: int) -> tuple[str, ...]:
    names: dict[str, None] = {}
    for node in _run_time_statements(_parsed(path, changed)):
        if isinstance(node, ast.Import):
            names |= dict.fromkeys(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            source = _absolute(module, path, node)
            names[source] = None
            names |= dict.fromkeys(f"{source}.{alias.name}" for alias in node.names)
    return tuple(name for name in names if name.partition(".")[0] != "__future__")


def _absolute(module: str, path: Path, node: ast.ImportFrom) -> str:
    """The module that `from X import ...` names, with leading dots resolved."""
    if not node.level:
        return node.module or ""
    package = module.split(".") if path.name == "__init__.py" else module.split(".")[:-1]
    above = package[: len(package) - node.level + 1]
    return ".".join([*above, *(node.module.split(".") if node.module else [])])


_BLOCKS = ("body", "orelse", "finalbody", "handlers", "cases")  # fields that hold statements, or what holds them


def _run_time_statements(tree: ast.AST) -> Iterator[ast.AST]:
    """Every statement, in functions and classes too, but those below `if TYPE_CHECKING:`."""
    ahead: list[ast.AST] = [tree]
    while ahead:
        node = ahead.pop()
        yield node
        typing_only = isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"
        for field in ("orelse",) if typing_only else _BLOCKS:
            ahead += getattr(node, field, ())


@lru_cache(maxsize=4096)
def _tree_hash(path: Path, changed: int) -> str:
    parts: list[str] = []
    _describe(_parsed(path, changed), parts)
    return hashlib.sha256("\x1f".join(parts).encode()).hexdigest()


def _describe(node: ast.AST, parts: list[str]) -> None:
    """Append a text of the tree that is equal for every Python version; empty fields are left out."""
    parts.append(type(node).__name__)
    for name in node._fields:
        value = getattr(node, name, None)
        if name == "body" and isinstance(value, list):
            value = _without_docstring(value)
        if isinstance(node, ast.JoinedStr) and isinstance(value, list):
            value = [item for item in value if not _is_empty_text(item)]
        if value is None or value == []:
            continue
        parts.append(name)
        for item in value if isinstance(value, list) else [value]:
            if isinstance(item, ast.AST):
                _describe(item, parts)
            else:
                parts.append(repr(item))
        parts.append("end")


def _is_empty_text(node: ast.AST) -> bool:
    """Python 3.12 ends a format such as `{x:{width}}` with an empty text, 3.11 does not."""
    return isinstance(node, ast.Constant) and node.value == ""


def _without_docstring(body: list[ast.stmt]) -> list[ast.stmt]:
    """Statements without plain strings, which are docstrings of modules, classes, functions and fields."""
    return [s for s in body if not (isinstance(s, ast.Expr) and isinstance(s.value, ast.Constant))]
