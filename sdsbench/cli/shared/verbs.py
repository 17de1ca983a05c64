"""The group of all commands (verbs); a command's module is imported only when it is called, so --help is fast."""

from __future__ import annotations

import importlib
import pkgutil
from pathlib import Path

import click
from click.shell_completion import CompletionItem

from sdsbench import cli
from sdsbench.cli.shared.completion import complete_override

RUN = "run"
SECTIONS = {
    "runs": (RUN, "compare", "show", "ls", "profile", "export", "replay", "check", "doctor"),
    "sweeps": ("plan", "sweep", "fetch", "submit", "status", "retry", "cancel", "disk", "clean"),
    "results": ("table", "trace", "verdict", "report", "bundle", "reproduce", "external"),
    "studies": ("figures", "theory"),
}
"""Sections and order of the help. A command missing here is listed under `more`."""

ABOUT = "sdsbench: does a low-rank method really beat LoRA, on your model and task, by how much, at what cost?"
FIRST = (
    (
        "sdsbench method=sds_lora model=micro train.max_steps=40 eval.limit=16",
        "one run, in seconds: train, evaluate, write a record",
    ),
    ("sdsbench ls", "models, methods, tasks, sweeps, tables to choose from"),
    ("sdsbench plan method=lora,sds_lora model=micro seed=0,1,2", "a sweep; `sdsbench sweep` runs it"),
)
USES = (
    ("sdsbench method=sds_lora task=gsm8k", "one run: train, evaluate, write a record (`run` may be left out)"),
    ("sdsbench method=lora model=micro seed=1", "KEY=VALUE in Hydra's syntax; choices: `sdsbench ls`"),
    ("sdsbench -m method=lora,sds_lora seed=0,1", "several runs, one after the other (Hydra's multirun)"),
    ("sdsbench --config-dir DIR ...", "with additional YAML files of your own"),
    ("sdsbench --cfg job ...", "print the composed configuration"),
    ("sdsbench --version", "this package's version"),
    ("python -m sdsbench ...", "the same command"),
)
LAST = """\
Every verb has --help.

Exit codes: 0 done, 2 bad configuration, 3 data or weights not available, 4 training failed, 130 interrupted;
of reproduce: 10 the same answers, 11 within the spread of seeds, 12 different.

Completion, in ~/.bashrc: eval "$(_SDSBENCH_COMPLETE=bash_source sdsbench)"; zsh_source and fish_source for those."""


def verbs() -> list[str]:
    """The names of all commands, one per module of sdsbench/cli, in alphabetical order."""
    return sorted(module.name for module in pkgutil.iter_modules(cli.__path__) if not module.ispkg)


def headline(verb: str) -> str:
    """What a command does: the first line of its module's docstring, read without importing it."""
    path = Path(cli.__path__[0]) / f"{verb}.py"
    with path.open(encoding="utf-8") as file:
        return file.readline().strip().strip('"').split(": ", 1)[-1].removesuffix(".")


class Verbs(click.Group):
    """Loads each command from the module of its name; a command line without a command is passed to `run`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        own = {name for option in self.get_params(ctx) for name in option.opts}
        if args and args[0] not in own and not args[0].isidentifier():
            args = [RUN, *args]
        return super().parse_args(ctx, args)

    def list_commands(self, ctx: click.Context) -> list[str]:
        return verbs()

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in verbs():
            return None
        return importlib.import_module(f"sdsbench.cli.{cmd_name}").command

    def format_help(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        formatter.write_text(ABOUT)
        with formatter.section("use"):
            formatter.write_dl(USES, col_max=42)
        known = {verb for section in SECTIONS.values() for verb in section}
        more = tuple(verb for verb in verbs() if verb not in known)
        for name, section in {**SECTIONS, "more": more}.items():
            if section:
                with formatter.section(name):
                    formatter.write_dl([(verb, headline(verb)) for verb in section])
        formatter.write_paragraph()
        formatter.write_text(LAST)

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        found = [CompletionItem(verb, help=headline(verb)) for verb in verbs() if verb.startswith(incomplete)]
        return [*found, *complete_override(ctx, None, incomplete)]


def _version(ctx: click.Context, _option: click.Parameter, asked: bool) -> None:
    if asked and not ctx.resilient_parsing:
        from importlib.metadata import version

        click.echo(f"sdsbench {version('sdsbench')}")
        ctx.exit()


@click.group(
    cls=Verbs,
    invoke_without_command=True,
    no_args_is_help=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.option("--version", is_flag=True, is_eager=True, expose_value=False, callback=_version)
@click.pass_context
def app(ctx: click.Context) -> None:
    if ctx.invoked_subcommand is None:
        formatter = ctx.make_formatter()
        formatter.write_text(ABOUT)
        with formatter.section("Three first commands"):
            for words, meaning in FIRST:
                formatter.write(f"  {words}\n      {meaning}\n")
        formatter.write_paragraph()
        formatter.write_text("`sdsbench --help` lists every verb; `python -m sdsbench` is the same command.")
        click.echo(formatter.getvalue(), nl=False)
