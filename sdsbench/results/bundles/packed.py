"""What goes into a bundle of a run's folder."""

from __future__ import annotations

import yaml

from sdsbench.core.record import Record


def configuration_text(record: Record) -> str:
    """config.yaml of a run in a bundle: the record's configuration, so that it can be compared as a text."""
    return yaml.safe_dump(record.config, sort_keys=True)
