"""Write docs/protocols.md: every protocol compared with its paper and its authors' code, item by item.

    python scripts/write_protocols.py

Everything comes from conf/: the texts from a protocol's tables `paper`, `code` and `ours`, our values from the composed
configuration of the protocol's method. A test checks that the document is what this script writes.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from sdsbench.core.leaves import leaves
from sdsbench.core.texts import text
from sdsbench.runs.configuration.choices import conf_folder, options
from sdsbench.runs.configuration.compose import compose_run
from sdsbench.runs.configuration.identity import run_id
from sdsbench.runs.configuration.paper import SETTINGS
from sdsbench.runs.configuration.schema import RunConfig

ROOT = Path(__file__).parent.parent
TARGET = ROOT / "docs" / "protocols.md"
HEAD = """# Protocols

This page compares each protocol with its paper and its authors' code, item by item. It is written by
`scripts/write_protocols.py` from `conf/`. A protocol is a file of `conf/protocol/`; `variant=paper` (the default)
follows the paper, `variant=code` follows the authors' code where it differs. A protocol's other values for a task, a
model or a method are in separate files of Hydra's groups `protocol_task`, `protocol_model`, `protocol_method`,
`protocol_method_model`, `protocol_variant` and `protocol_variant_method` (the path names protocol, variant and
choice); later groups override earlier ones, and the command line overrides all. `sdsbench show protocol=NAME` prints a
run.

The last column contains our values for the overrides under each title; two values are those of `variant=paper` and
`variant=code`. A source in brackets is a file of the authors' repository and the expression there that decides. An
empty cell means that nothing is stated.
"""
ITEMS: dict[str, Callable[[RunConfig], Any]] = {name: value for name, value in SETTINGS.items() if name != "length"} | {
    "optimizer": lambda c: c.train.optimizer,
    "rank": lambda c: getattr(c.method, "rank", None),
    "alpha": lambda c: getattr(c.method, "alpha", None),
    "seeds": lambda c: c.protocol.seeds,
}
"""Settings that have a value in every run, by the name that protocols use for them."""
GROUPS = {
    "protocol_task": "task=", "protocol_model": "model=", "protocol_method": "method=",
    "protocol_method_model": "method=", "protocol_variant": "variant=",
    "protocol_variant_method": "variant=",
}  # fmt: skip


def document() -> str:
    """The whole page."""
    parts = [HEAD]
    for protocol in options("protocol"):
        path = conf_folder() / "protocol" / f"{protocol}.yaml"
        if path.is_file():  # not one of an installed plugin
            parts += _section(protocol, yaml.safe_load(path.read_text()))
    return "\n".join(parts)


def _section(protocol: str, tree: Mapping[str, Any]) -> Iterator[str]:
    own = tree["protocol"]
    words = [f"protocol={protocol}", *_method_of(protocol)]
    configs = {name: compose_run([*words, f"variant={name}"]) for name in own.get("variants", ["paper", "code"])}
    command = " ".join(words)
    yield f"## {protocol}\n"
    yield f"{own['source'].capitalize() if ' ' not in own['source'] else own['source']}. Our values: `{command}`.\n"
    if "code" in configs and run_id(configs["paper"]) == run_id(configs["code"]):
        yield "Both variants are one run: the code decides what the paper leaves open, and contradicts nothing in it.\n"
    yield from _items(own, configs)
    others = [f"- {key}: {text(value)}." for key, value in own.get("ours", {}).items()]
    if others:
        yield "Otherwise here, or not offered:\n"
        yield "\n".join(others) + "\n"
    if special := list(_specialised(protocol)):
        yield "Values for single choices:\n"
        yield "\n".join(["| for | values |", "|---|---|", *special]) + "\n"


def _method_of(protocol: str) -> list[str]:
    """The override of the protocol's method, and of a task if the protocol's own task is several runs."""
    method = protocol.partition("/")[0]
    task = ["task=glue/rte"] if protocol.endswith("/glue") else []
    return ([f"method={method}"] if method in options("method") else ["method=lora"]) + task


def _items(own: Mapping[str, Any], configs: Mapping[str, RunConfig]) -> Iterator[str]:
    """Yield the table with one line per item: first the settings that every run has, then the others."""
    paper, code = _single(own["paper"]), _single(own.get("code", {}))
    lines = ["| item | paper | code | ours |", "|---|---|---|---|"]
    for item in dict.fromkeys([*ITEMS, *paper, *code]):
        cells = (item, paper.get(item), code.get(item), _ours(item, configs))
        lines.append(f"| {' | '.join(_cell(value) for value in cells)} |")
    yield "\n".join(lines) + "\n"


def _single(table: Mapping[str, Any]) -> dict[str, str]:
    """Split `epochs, batch: 1, 32` into two items if both are settings of a run."""
    found = {}
    for key, value in table.items():
        keys, values = key.split(", "), text(value).split(", ")
        pairs = len(keys) == len(values) and all(name in ITEMS for name in keys)
        found |= dict(zip(keys, values, strict=True)) if pairs else {key: text(value)}
    return {("max length" if key == "length" else key): value for key, value in found.items()}


def _ours(item: str, configs: Mapping[str, RunConfig]) -> str:
    if item not in ITEMS:
        return ""
    values = [text(ITEMS[item](config)) for config in configs.values()]
    return ", ".join(dict.fromkeys(values)) if len(set(values)) > 1 else values[0]


def _cell(value: str | None) -> str:
    return re.sub(r"([|*_<])", r"\\\1", value) if value else ""


def _specialised(protocol: str) -> Iterator[str]:
    """Yield a line for each file with the protocol's values for one choice."""
    for group, key in GROUPS.items():
        root = conf_folder() / group / protocol
        for path in sorted(root.rglob("*.yaml")):
            choice = path.relative_to(root).with_suffix("").as_posix()
            if group == "protocol_method_model":
                choice = choice.replace("/", " model=", 1)
            elif group == "protocol_variant_method":
                choice = choice.replace("/", " method=", 1)
            found = leaves(yaml.safe_load(path.read_text()))
            yield f"| `{key}{choice}` | {', '.join(f'`{name}={text(value)}`' for name, value in found)} |"


if __name__ == "__main__":
    TARGET.write_text(document())
    print(TARGET.relative_to(ROOT))
