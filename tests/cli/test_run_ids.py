"""Commands accept a run as its folder, its id, or a beginning of its id that no other run shares."""

from __future__ import annotations

from pathlib import Path

import pytest

from sdsbench.__main__ import main
from sdsbench.cli.shared.run_folders import completed, run_folder
from sdsbench.core.errors import ConfigError


@pytest.fixture
def roots(tmp_path: Path) -> list[str]:
    for name in ("one/aa11", "one/aa22", "two/bb11"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "record.json").touch()
    (tmp_path / "one" / "aa33").mkdir()  # not a run, since it has no record
    return [str(tmp_path / "one"), str(tmp_path / "two")]


def test_run_is_found_by_id_prefix_and_folder(roots: list[str]) -> None:
    for text in ("bb11", "b", f"{roots[1]}/bb11"):
        assert run_folder(text, roots) == Path(roots[1]) / "bb11"
    assert run_folder("aa2", roots).name == "aa22"
    assert run_folder("bb11", [f"{roots[1]}/bb11"]).name == "bb11", "a root may be the run's own folder"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("aa", "Several begin so: aa11, aa22."),
        ("aa33", "accepted: a run folder"),
        ("bb12", "Did you mean 'bb11'?"),
        ("", "a run folder"),
    ],
)
def test_ambiguous_or_unknown_run_is_refused(text: str, expected: str, roots: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        run_folder(text, roots)
    assert expected in str(caught.value)


def test_complete_id_is_not_ambiguous_if_another_begins_with_it() -> None:
    assert completed("run", "ab", ["ab", "abc"], "a run") == "ab"


@pytest.mark.parametrize("words", [["bundle", "nope", "-o", "x.zip"], ["export", "nope", "out"]], ids=" ".join)
def test_command_that_takes_a_plan_lists_the_plans(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("nopes", "study/a"):
        (tmp_path / "results" / "plans" / name).mkdir(parents=True)
        (tmp_path / "results" / "plans" / name / "manifest.json").touch()
    assert main(words) == 2
    error = " ".join(capsys.readouterr().err.split())
    assert "or a plan (in results/plans: nopes, study/a)" in error and "Did you mean 'nopes'?" in error
