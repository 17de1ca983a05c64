"""`python -m sdsbench` and `sdsbench`: a first word that is a verb runs that verb, other words are those of `run`."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

import click

from sdsbench.cli.shared.verbs import app
from sdsbench.core.console import print_wrapped, printing_text, reader_is_gone
from sdsbench.core.errors import SdsbenchError
from sdsbench.core.files import refused_by_system

NAME, COMPLETION = "sdsbench", "_SDSBENCH_COMPLETE"


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry of both commands; returns the exit code and prints errors as one message, without a traceback."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if instruction := os.environ.get(COMPLETION):
        from click.shell_completion import shell_complete

        return shell_complete(app, {}, NAME, COMPLETION, instruction)
    try:
        with printing_text():
            code = _called(words)
            sys.stdout.flush()
            return code
    except SdsbenchError as error:
        print_wrapped(f"sdsbench: {error}", stderr=True)
        return error.exit_code
    except (KeyboardInterrupt, click.Abort):
        print("sdsbench: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # `sdsbench ls | head -1`
        reader_is_gone()
        return 0
    except OSError as error:
        refused = refused_by_system(error)
        if refused is None:
            raise
        print_wrapped(f"sdsbench: {refused}", stderr=True)
        return refused.exit_code


def script() -> int:
    """Entry of the command `sdsbench`: also searches the working folder for plugins, as `python -m sdsbench` does."""
    sys.path.append(os.getcwd())
    return main()


def _called(words: list[str]) -> int:
    try:
        with app.make_context(NAME, list(words)) as context:
            return app.invoke(context) or 0
    except click.exceptions.Exit as asked:
        return asked.exit_code
    except click.ClickException as error:
        from sdsbench.cli.shared.refusals import refusal

        raise refusal(error, words) from None


if __name__ == "__main__":
    sys.exit(main())
