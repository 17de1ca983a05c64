"""The command line: help without heavy imports, exit codes, misspellings, completion and docs/cli.md."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.shell_completion import ShellComplete

from sdsbench.__main__ import main
from sdsbench.cli.shared import options
from sdsbench.cli.shared.verbs import SECTIONS, Verbs, app, headline, verbs
from sdsbench.core import console
from sdsbench.core.errors import ConfigError, Interrupted, Problem, SdsbenchError, TrainingFailed, Unavailable
from sdsbench.core.record import STAGES
from sdsbench.runs.configuration.schema import RunConfig
from sdsbench.sweeps.placing import KEYS
from tests.conftest import ROOT

HEAVY = {
    "torch", "hydra", "jinja2", "numpy", "omegaconf", "pandas", "pydantic", "rich", "scipy", "transformers", "yaml",
    "sdsbench.core.record", "sdsbench.runs.configuration.schema",
}  # fmt: skip


def run_python(*words: str, **options: object) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, *words]
    return subprocess.run(command, env=environment, text=True, check=False, **{"capture_output": True, **options})  # type: ignore[call-overload]


# ---- help


def test_help_of_every_verb_imports_no_heavy_library() -> None:
    code = f"""
import sys
from sdsbench.__main__ import main
from sdsbench.cli.shared.verbs import verbs
for words in ([], ["--help"], ["-h"], *([verb, "--help"] for verb in verbs())):
    assert main(words) == 0, words
    assert not {HEAVY!r} & set(sys.modules), (words, {HEAVY!r} & set(sys.modules))
"""
    done = run_python("-c", code)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("Usage: sdsbench ") == len(verbs())


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--methods", "lora,dorra", "--budget", "2x"], ["Did you mean 'dora'?", "30m, 4h or 2d"]),
        (["--methods", "lora,dora", "--budget", "9" * 400 + "h"], ["30m, 4h or 2d"]),
    ],
    ids=["method and budget", "budget"],
)
def test_compare_refuses_its_options_before_heavy_imports(
    words: list[str], expected: list[str], tmp_path: Path
) -> None:
    code = f"""
import sys
from sdsbench.__main__ import main
code = main(["compare", *{words!r}])
heavy = {HEAVY!r} - {{"rich"}}  # rich prints the message
assert not heavy & set(sys.modules), heavy & set(sys.modules)
sys.exit(code)
"""
    done = run_python("-c", code, cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    assert all(text in done.stderr for text in expected)


def test_mistyped_key_is_refused_before_the_imports_of_a_run(tmp_path: Path) -> None:
    code = """
import sys
from sdsbench.__main__ import main
code = main(["train.rl=1"])
assert "sdsbench.runs.aggregate" not in sys.modules
sys.exit(code)
"""
    done = run_python("-c", code, cwd=tmp_path)
    assert done.returncode == 2 and "Did you mean 'train.lr'?" in done.stderr, done.stderr


def test_status_needs_no_torch(tmp_path: Path) -> None:
    code = "import sys; sys.modules['torch'] = None\nfrom sdsbench.__main__ import main; sys.exit(main(['status']))"
    done = run_python("-c", code, cwd=tmp_path)
    assert done.returncode == 0 and done.stdout.startswith("no plan in "), done.stderr


def test_no_arguments_show_three_first_commands(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    text = capsys.readouterr().out
    assert sum(line.startswith("  sdsbench ") for line in text.splitlines()) == 3
    assert max(map(len, text.splitlines())) <= 80


def test_help_names_every_verb_once(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    lines = capsys.readouterr().out.splitlines()
    for verb in verbs():
        assert sum(line.startswith(f"  {verb} ") for line in lines) == 1, verb
        assert headline(verb) and not headline(verb).startswith("`")
    assert max(map(len, lines)) <= 80


def test_help_lists_a_verb_without_a_section_under_more(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(SECTIONS, "studies", ("figures",))
    assert main(["--help"]) == 0
    assert "\nmore:\n  theory " in capsys.readouterr().out


def test_version_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == "sdsbench 0.1.0\n"


def test_docs_cli_page_is_up_to_date_and_placing_keys_exist() -> None:
    spec = importlib.util.spec_from_file_location("write_cli", ROOT / "scripts" / "write_cli.py")
    assert spec is not None and spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    assert (ROOT / "docs" / "cli.md").read_text() == script.document(), "run python scripts/write_cli.py"
    assert set(options.PLACING.split(", ")) <= set(KEYS)


def test_option_stage_accepts_the_stages_of_records() -> None:
    """Help must be fast, so the option does not import them."""
    (option,) = options.stage(lambda: None).__click_params__  # type: ignore[attr-defined]
    assert tuple(option.type.choices) == STAGES


def test_overrides_are_declared_alike_in_every_verb() -> None:
    context = click.Context(app)
    taking = []
    for verb in verbs():
        command = app.get_command(context, verb)
        assert command is not None
        for parameter in command.params:
            if isinstance(parameter, click.Argument) and "KEY" in str(parameter.metavar):
                taking.append(verb)
                assert (parameter.name, parameter.nargs, parameter.metavar) == ("overrides", -1, "[KEY=VALUE]...")
    assert taking == [
        "check",
        "compare",
        "fetch",
        "plan",
        "profile",
        "reproduce",
        "retry",
        "run",
        "show",
        "status",
        "submit",
        "sweep",
    ]


# ---- exit codes


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ConfigError([Problem("a", 1, "2")]), 2),
        (click.UsageError("no"), 2),
        (Unavailable("no"), 3),
        (TrainingFailed("no"), 4),
        (Interrupted("no"), 130),
        (KeyboardInterrupt(), 130),
        (click.Abort(), 130),
    ],
    ids=lambda value: type(value).__name__,
)
def test_error_ends_with_its_exit_code_and_no_traceback(
    error: BaseException, code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail() -> None:
        raise error

    monkeypatch.setattr(Verbs, "get_command", lambda *_: click.Command("ls", callback=fail))
    assert main(["ls"]) == code
    text = capsys.readouterr().err
    assert text.startswith("sdsbench: ") and "Traceback" not in text


def test_closed_output_pipe_is_no_error() -> None:
    """As in `sdsbench ls | head -1`."""
    reader, writer = os.pipe()
    os.close(reader)
    done = run_python("-m", "sdsbench", "ls", capture_output=False, stdout=writer, stderr=subprocess.PIPE)
    os.close(writer)
    assert (done.returncode, done.stderr) == (0, "")


def test_printing_to_a_closed_pipe_raises_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    class ClosedPipe:
        def write(self, _text: str) -> int:
            raise BrokenPipeError

    reported: list[bool] = []
    monkeypatch.setattr(console, "reader_is_gone", lambda: reported.append(True))
    monkeypatch.setattr(sys, "stdout", ClosedPipe())
    console.print_now("a line")
    monkeypatch.undo()
    assert reported == [True]


# ---- misspellings

REFUSED = [  # arguments, and a part of the message
    (["swep"], "Did you mean 'sweep'?"),
    (["method", "lora"], "Hydra writes method=lora."),
    (["lora", "gsm8k"], "Hydra writes method=lora task=gsm8k."),
    (["lora", "seed=1"], "Hydra writes method=lora."),
    (["table", "nosuch"], "bibtex, compare, dora"),
    (["--method", "lora"], "Hydra writes method=lora, without dashes"),
    (["--method=lora", "model=micro"], "Hydra writes method=lora, without dashes"),
    (["model=micro", "--lr", "1e-3"], "Hydra writes train.lr=1e-3, without dashes"),
    (["show", "--train.lr=1e-3"], "Hydra writes train.lr=1e-3, without dashes"),
    (["plan", "--rank=4"], "Hydra writes method.rank=4, without dashes"),
    (["plan", "--method"], "Hydra writes method=VALUE, without dashes"),
    (["--config-dri", "x"], "Did you mean '--config-dir'?"),
    (["sweep", "x", "--worker", "3"], "Did you mean '--workers'?"),
    (["report", "--runz", "x"], "Did you mean '--runs'?"),
    (["report", "--method", "lora"], "no option --method. (sdsbench report --help)"),
    (["plan", "--wxyz=1"], "KEY=VALUE, without dashes"),
    (["sweep"], "Missing argument 'PLAN'"),
    (["sweep", "x", "--workers", "two"], "--workers"),
    (["sweep", "x", "--deaths", "0"], "0 is not in the range x>=1"),
    (["profile", "--steps", "0"], "0 is not in the range x>=1"),
    (["table", "grid", "--format", "markdwon"], "'markdown'"),
    (["retry", "x", "--faild"], "Did you mean '--failed'?"),
    (["ls", "clams"], "Did you mean 'claim'?"),
    (["-m", "--cfg", "job"], "one of them at a time"),
    (["--resolve"], "go with --cfg"),
    (["--cfg", "jbo"], "'job', 'hydra', 'all'"),
    (["model=micro", "plan"], "A verb comes first: `sdsbench plan ...`"),
    (["trace", "grid", "lora"], "TABLE ROW COLUMN"),
    (["trace", "grid"], "Which row and column of the table grid?"),
    (["trace", "compare"], "Which row and column of the table compare?"),
    (["trace", "lora_sb/table1"], "Which row and column of the table lora_sb/table1?"),
    (["verdict", "sds_above_lora_gsm8"], "Did you mean 'sds_above_lora_gsm8k'?"),
    (["--config-dir", "nowhere"], "'nowhere' does not exist"),
    (["-m", "-cd", "nowhere", "seed=0,1"], "'nowhere' does not exist"),
    (["plan", "--config-dir=nowhere"], "'nowhere' does not exist"),
    (["show", "hydra.searchpath=[nowhere]"], "hydra.searchpath='nowhere'"),
    (["-m", "method=lroa,lora", "train.rl=1"], "Did you mean 'lora'?"),
    (["--cfg", "job", "train.rl=1"], "Did you mean 'train.lr'?"),
    (["model=micro", "hydra.run.dir=x"], "act with -m alone"),
    (["show", "nothing_of_the_kind"], "or the id of a run in results/runs"),
]


@pytest.mark.parametrize(("words", "expected"), REFUSED, ids=[" ".join(words) for words, _ in REFUSED])
def test_misspelling_is_refused_with_a_suggestion_and_no_side_effect(
    words: list[str], expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    before = list(sys.argv), os.environ.get("HYDRA_FULL_ERROR")
    assert main(words) == 2
    text = capsys.readouterr().err
    assert text.startswith("sdsbench: ") and text.count("sdsbench: ") == 1 and "Traceback" not in text
    assert expected in text
    assert list(tmp_path.iterdir()) == []
    assert (list(sys.argv), os.environ.get("HYDRA_FULL_ERROR")) == before


def test_message_names_both_problems_of_a_multirun(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["-m", "method=lora,lroa", "train.rl=1", "model=micro"]) == 2
    text = capsys.readouterr().err
    assert "2 problems" in text and "method='lroa'" in text and "train.rl" in text


@pytest.mark.parametrize(
    ("error", "code", "started"), [(TrainingFailed("no"), 4, [0, 1, 2]), (Interrupted("no"), 130, [0])]
)
def test_multirun_continues_after_a_failure_and_stops_after_an_interruption(
    error: SdsbenchError, code: int, started: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sdsbench.runs import execute as module

    seeds = []

    def execute(config: RunConfig) -> None:
        seeds.append(config.seed)
        if config.seed == 0:
            raise error

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(module, "execute", execute)
    assert main(["-m", "model=micro", "seed=0,1,2", "hydra/hydra_logging=none"]) == code
    assert seeds == started


def test_hydra_shows_configurations_of_a_users_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "method").mkdir()
    (tmp_path / "method" / "mine.yaml").write_text((ROOT / "conf" / "method" / "lora.yaml").read_text())
    words = ["--cfg", "job", "--config-dir", str(tmp_path), "method=mine", "-p", "method"]
    assert main(words) == 0
    assert "name: lora" in capsys.readouterr().out
    assert main(["--info", "searchpath", "-cd", str(tmp_path)]) == 0
    assert f"file://{tmp_path}" in capsys.readouterr().out
    assert main(["--hydra-help"]) == 0
    assert "--multirun" in capsys.readouterr().out


def test_ls_names_tables_claims_and_sweeps(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["ls"]) == 0
    text = capsys.readouterr().out
    for part in (
        "method=\n",
        "sweep=\n",
        "  study/many_seeds ",
        "table:\n",
        "  lora_sb/table1 ",
        "claim:\n",
        "  sds_above_lora_gsm8k",
    ):
        assert part in text
    assert main(["ls", "tables"]) == 0
    assert capsys.readouterr().out.splitlines()[0] == "table:"


# ---- completion


def completions(*words: str, incomplete: str) -> list[str]:
    found = ShellComplete(app, {}, "sdsbench", "_SDSBENCH_COMPLETE").get_completions(list(words), incomplete)
    return [item.value for item in found]


def test_completion_of_verbs_options_groups_and_keys(tmp_path: Path) -> None:
    assert completions(incomplete="sw") == ["sweep"]
    assert "--workers" in completions("sweep", "x", incomplete="--")
    assert "--config-dir" in completions("method=lora", incomplete="--c")
    assert completions("show", incomplete="method=lora_s") == ["method=lora_sb"]
    assert "method=sds_lora" in completions("seed=1", incomplete="meth")
    assert completions("seed=1", incomplete="train.l") == ["train.lr="]
    assert completions(incomplete="method=sds") == ["method=sds_lora"]
    assert completions("show", "method", "=", incomplete="sds") == ["sds_lora"]  # bash splits words at =
    assert "sds_lora" in completions("show", "method", incomplete="=")
    (tmp_path / "method").mkdir()
    (tmp_path / "method" / "zz.yaml").touch()
    assert completions("show", "--config-dir", str(tmp_path), incomplete="method=z") == ["method=zz"]


def test_completion_script_for_zsh_is_printed() -> None:
    done = run_python(
        "-c", "import os; os.environ['_SDSBENCH_COMPLETE'] = 'zsh_source'; import sdsbench.__main__ as m; m.main([])"
    )
    assert done.returncode == 0 and "_SDSBENCH_COMPLETE=zsh_complete" in done.stdout


def test_every_error_class_has_a_documented_exit_code() -> None:
    classes = [SdsbenchError]
    for one in classes:
        classes += one.__subclasses__()
    assert {one.exit_code for one in classes[1:]} == {2, 3, 4, 130}
