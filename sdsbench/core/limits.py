"""Limits on the size of foreign files, packed and unpacked: a small malicious file must not fill memory or disk.

Environment variables set the limits, because commands without a run's configuration read such files too.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

from sdsbench.core.errors import ConfigError, DamagedFile, Problem

PREFIX = "SDSBENCH_LIMIT_"


@dataclass(frozen=True)
class Limit:
    """The largest size that is read of one kind of thing, and the environment variable that overrides it."""

    name: str
    what: str  # the kind of thing, for messages: "a record"
    unit: str
    default: int

    @property
    def key(self) -> str:
        return PREFIX + self.name

    @property
    def value(self) -> int:
        """The current limit. Raises ConfigError if its environment variable is not a whole number of at least 1."""
        text = os.environ.get(self.key)
        if text is None:
            return self.default
        if not text.isdecimal() or len(text) > 18 or int(text) < 1:
            raise ConfigError([Problem(self.key, text[:40], f"a whole number of {self.unit} from 1")])
        return int(text)

    def require(self, size: int, where: object) -> None:
        """Raises DamagedFile, naming `where`, if the size exceeds the limit."""
        if size > self.value:
            raise DamagedFile(
                f"{where}: {self.what} of more than {self.value} {self.unit}, the limit; "
                f"{self.key}=NUMBER in the environment raises it."
            )


MEGA = 10**6
RECORD = Limit("RECORD", "a record", "bytes", 16 * MEGA)
STEPS = Limit("STEPS", "a step log", "bytes", 512 * MEGA)
ANSWERS = Limit("ANSWERS", "a list of answers or probes", "bytes unpacked", 512 * MEGA)
MANIFEST = Limit("MANIFEST", "a manifest or configuration", "bytes", 128 * MEGA)
EXTERNAL = Limit("EXTERNAL", "a result of another tool", "bytes", 64 * MEGA)
BUNDLE = Limit("BUNDLE", "a bundle", "bytes unpacked", 4000 * MEGA)
ENTRIES = Limit("ENTRIES", "a bundle", "files", 200_000)
DATA = Limit("DATA", "a packed data file", "bytes unpacked", 4000 * MEGA)
ROWS = Limit("ROWS", "a data file", "rows", 100 * MEGA)
PIXELS = Limit("PIXELS", "an image", "pixels", 50 * MEGA)
