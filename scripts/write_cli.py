"""Write docs/cli.md: every command with its arguments and options, from the commands' own help.

    python scripts/write_cli.py

A test checks that the document is what this script writes.
"""

from __future__ import annotations

from pathlib import Path

import click

from sdsbench.cli.shared.options import PLACING
from sdsbench.cli.shared.verbs import SECTIONS, USES, app, headline, verbs

TARGET = Path(__file__).parent.parent / "docs" / "cli.md"
WIDTH = 100
HEAD = f"""\
# The command line

This page lists every command (verb) of sdsbench, the grammar of overrides and the exit codes. It is written by
`scripts/write_cli.py`; `sdsbench VERB --help` prints the same. `python -m sdsbench` is the same command as `sdsbench`.
If the first word is an override or an option, all words are arguments of `sdsbench run`; other unknown words are
refused.

| command | what it does |
|---|---|
{{uses}}

## Overrides

Every verb that takes `KEY=VALUE` reads it with Hydra's own parser. Verbs that compose a configuration also take
`--config-dir DIR` (repeatable) or `hydra.searchpath=[DIR]` for folders with your own YAML files.

* `method=lora` chooses a file of a group (`sdsbench ls`), `train.lr=1e-3` sets a key (`sdsbench show` lists them).
  `++train.lr=1e-3` is the same; keys cannot be added (`+`) or deleted (`~`).
* `+experiment=NAME` uses `experiment/NAME.yaml` of your own folder; conf/ has no such group.
* Several values (`seed=0,1,2`, `seed=range(0,3)`, `method=glob(lora*)`) make a sweep, with `sdsbench plan` or `-m`.
* A text with `=`, `(`, or letters outside ASCII is quoted twice, for the shell and for Hydra:
  `'data.root="/daten/größe 1"'`; in a list each text is quoted: `'slurm.extra=["--exclude=node7"]'`.
* A plan's runs are frozen: `sweep`, `status`, `submit` and `retry` take only keys that place runs
  (`sdsbench show` marks them), such as {PLACING},
  and with SLURM `slurm=NAME` and `slurm.KEY=VALUE`.
* Keys of Hydra itself are set only on the command line, with `-m`, not in YAML files of a group:
  `hydra/launcher=joblib`, `submitit_local`, `submitit_slurm` (`pip install 'sdsbench[launchers]'`),
  `hydra/sweeper=optuna` (installed separately: `pip install -c requirements.lock hydra-optuna-sweeper`, which installs
  optuna 2.10; scores need `hydra.sweeper.direction=maximize`). A job's value is its headline score, a fraction. A
  failed job is a failure to launchers and sweepers, too, and submitit resumes a preempted job ([SLURM](slurm.md)).
  After a failure the other jobs run; after an interruption none begins. A study of optuna ends at its first batch with
  a failed job; with `hydra.sweeper.max_failure_rate=1.0` it continues, and the command ends with the failed job's code.
* `${{oc.env:NAME}}`, quoted for the shell, is allowed only in keys that place runs.

Runs are named by folder, by id, or by an unambiguous beginning of an id (`export`, `replay`, `show`,
`trace`, `bundle`, and `--run` of `cancel`, `retry` and `reproduce`).

## Exit codes

| code | meaning |
|---|---|
| 0 | done |
| 2 | bad configuration or command line |
| 3 | data or weights not available, or a damaged file |
| 4 | training failed: non-finite loss, out of memory, disk full |
| 10, 11, 12 | from `reproduce`: the same answers, within the spread of seeds, different |
| 130 | interrupted; the state is saved |

## Completion in a shell

| shell | line of its start-up file |
|---|---|
| bash | `eval "$(_SDSBENCH_COMPLETE=bash_source sdsbench)"` |
| zsh | `eval "$(_SDSBENCH_COMPLETE=zsh_source sdsbench)"` |
| fish | `_SDSBENCH_COMPLETE=fish_source sdsbench \\| source` |

It completes verbs, options, groups with their choices, and the keys of conf/config.yaml.
"""


def document() -> str:
    """The whole text of docs/cli.md."""
    uses = "\n".join(f"| `{words}` | {meaning} |" for words, meaning in USES)
    parts = [HEAD.replace("{uses}", uses)]
    more = [verb for verb in verbs() if not any(verb in section for section in SECTIONS.values())]
    for name, section in {**SECTIONS, "more": more}.items():
        if section:
            parts.append(f"## Verbs: {name}\n")
        parts += [_verb(verb) for verb in section]
    return "\n".join(parts)


def _sentence(text: str) -> str:
    return text if text.endswith("?") else f"{text}."


def _verb(name: str) -> str:
    settings = {**app.context_settings, "terminal_width": WIDTH}
    root = click.Context(app, info_name="sdsbench", **settings)
    command = app.get_command(root, name)
    assert command is not None
    text = command.get_help(click.Context(command, root, name))
    return f"### sdsbench {name}\n\n{_sentence(headline(name))}\n\n```text\n{text}\n```\n"


if __name__ == "__main__":
    TARGET.write_text(document())
