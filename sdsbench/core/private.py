"""Private data: names of machines and users, and absolute paths. Records and bundles never contain them.

If they help the owner (which machine a run died on, which folder was missing), they are kept in a separate file in the
run's folder that is never copied, exported or read by tables.
"""

from __future__ import annotations

import getpass
import json
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from sdsbench.core.errors import DamagedFile
from sdsbench.core.limits import Limit
from sdsbench.core.reading import read_text

FILE = "private.jsonl"
_ABSOLUTE = re.compile(r"(?<![\w/:.~>)])/(?:[^\s'\"`:,;()\[\]{}<>|/]+/)+([^\s'\"`:,;()\[\]{}<>|/]*)")


_NOBODY = ("root", "user", "nobody", "admin", "ubuntu", "runner")
_SECRET = re.compile("TOKEN|SECRET|PASSWORD|PASSWD|CREDENTIAL|API_?KEY|ACCESS_KEY", re.IGNORECASE)


def keep(folder: Path, **facts: Any) -> None:
    """Append a line to the private file of a run's folder; the file is readable by its owner only."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK
    with os.fdopen(os.open(folder / FILE, flags, 0o600), "a") as file:
        file.write(json.dumps(facts) + "\n")


def last(folder: Path, name: str, limit: Limit) -> Any:
    """The last value kept under a name; None if there is none or it cannot be read."""
    try:
        lines = read_text(folder / FILE, limit).splitlines()
        values = [facts[name] for line in lines if name in (facts := json.loads(line))]
    except (DamagedFile, ValueError, TypeError, RecursionError):
        return None
    return values[-1] if values else None


def host() -> str:
    """The name of this machine."""
    return os.uname().nodename


def user() -> str:
    """The name of this user; empty if the system knows none or the name is generic and identifies nobody."""
    try:
        name = getpass.getuser()
    except (KeyError, OSError):
        return ""
    return "" if name in _NOBODY else name


def public_text(text: str, folders: Mapping[str, str | None]) -> str:
    """The message without private data: a folder in `folders` (key -> path) is replaced by its key, another absolute
    path by its last part, and the names of this machine and user by neutral words."""
    for place, name in _places(folders):
        text = re.sub(rf"{re.escape(place)}(?![\w.-])", name, text)
    text = _ABSOLUTE.sub(r"(...)/\1", text)
    for name, word in ((host(), "(host)"), (user(), "(user)")):
        if len(name) > 1:
            text = re.sub(rf"(?<![\w-]){re.escape(name)}(?![\w-])", word, text)
    return text


def secrets() -> list[str]:
    """Values of environment variables whose names look like secrets; no published file may contain them."""
    return [value for name, value in os.environ.items() if _SECRET.search(name) and len(value) >= 8]


def private_in(text: str, paths: bool) -> str:
    """Describes the private data in a text to be published; empty if there is none. Secrets are not repeated.

    With `paths` (for files that this package writes) any absolute path and the names of this machine and user count;
    without it (for example for a model's answers) only this user's own folders.
    """
    if any(value in text for value in secrets()):
        return "the value of a secret environment variable"
    for place, name in _places({}):
        if place != "/" and place in text:
            return f"a folder of this machine ({name})"
    if not paths:
        return ""
    if found := _ABSOLUTE.search(text):
        return f"an absolute path ({found[0][:60]})"
    for name, word in ((host(), "machine"), (user(), "user")):
        if len(name) > 2 and re.search(rf"(?<![\w-]){re.escape(name)}(?![\w-])", text):
            return f"the name of this {word}"
    return ""


def _places(folders: Mapping[str, str | None]) -> Iterator[tuple[str, str]]:
    """Absolute paths that a message may contain, with their replacements; paths of configuration keys first."""
    for key, value in folders.items():
        if value and Path(value).is_absolute():
            yield str(Path(value)), f"({key})"
        if value and str(resolved := Path(value).resolve()) not in ("/", value):
            yield str(resolved), f"({key})"
    yield str(Path.cwd()), "."
    if str(home := Path.home()) != "/":
        yield str(home), "~"
