"""YAML files from others cannot set Hydra's keys, put environment variables into records, or hang a command."""

from __future__ import annotations

import json
import re
from hashlib import sha256
from pathlib import Path

import pytest

from sdsbench.__main__ import main
from sdsbench.core.errors import ConfigError, Refused, SdsbenchError, Unavailable
from sdsbench.models.location import weights_of
from sdsbench.runs.configuration.compose import compose_run
from sdsbench.runs.execute import execute
from sdsbench.sweeps import placing
from sdsbench.sweeps.blocks import define
from sdsbench.sweeps.expand import Composer, product
from sdsbench.sweeps.plan import Plan, read
from sdsbench.sweeps.slurm_config import configure
from sdsbench.sweeps.states import root_of
from tests.conftest import ROOT
from tests.sweeps.tools import TINY, tiny_plan
from tests.tools import QUIET

LORA = (ROOT / "conf" / "method" / "lora.yaml").read_text()


def group_file(folder: Path, group: str, text: str, name: str = "theirs") -> str:
    """Write a file of a configuration group, and return the configuration folder."""
    (folder / group).mkdir(parents=True, exist_ok=True)
    (folder / group / f"{name}.yaml").write_text(text)
    return str(folder)


def assert_refused(words: list[str], folder: str, *words_of_message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        compose_run(["model=micro", *words], [folder])
    for text in words_of_message:
        assert text in str(caught.value)


# ---- Hydra's own keys

HYDRA_KEYS = {
    "callback": "# @package _global_\nhydra: {callbacks: {theirs: {_target_: builtins.print}}}\nmethod: {name: lora}\n",
    "package": "# @package hydra\njob: {env_set: {PATH: theirs}}\n",
    "launcher": "# @package _global_\ndefaults: [override /hydra/hydra_logging: disabled]\n",
    "folder": "# @package _global_\nhydra: {run: {dir: /theirs}, sweep: {dir: /theirs}}\n",
}


@pytest.mark.parametrize("name", HYDRA_KEYS)
def test_group_file_that_sets_a_key_of_hydra_is_refused(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = group_file(tmp_path / "conf", "experiment", HYDRA_KEYS[name])
    assert_refused(["+experiment=theirs"], folder, "hydra.", "Keys of Hydra itself are set on the command line")
    words = ["-m", "model=micro", "+experiment=theirs", "seed=0,1", "--config-dir", folder]
    assert main([*words, f"output_root={tmp_path / 'runs'}"]) == 2
    assert "Keys of Hydra itself are set on the command line" in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


def test_every_choice_of_a_multirun_is_checked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = group_file(tmp_path / "conf", "method", HYDRA_KEYS["callback"])
    for choice in ("method=lora,theirs", "method=glob(t*)"):
        words = ["-m", "model=micro", choice, "--config-dir", folder, f"output_root={tmp_path / 'runs'}"]
        assert main(words) == 2
        assert "hydra.callbacks" in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


def test_users_group_file_composes(tmp_path: Path) -> None:
    folder = group_file(tmp_path, "method", LORA)
    assert compose_run(["model=micro", "method=theirs"], [folder]).method.name == "lora"


# ---- the environment


@pytest.mark.parametrize(
    "text",
    [
        LORA.replace("name: lora", "name: lora_${oc.env:SECRET_TOKEN}"),
        LORA.replace("name: lora", "name: ${oc.decode:${oc.env:SECRET_TOKEN}}"),
        LORA.replace("name: lora", "name: ${output_root}"),
        LORA.replace("name: lora", "name: ${hydra:runtime.cwd}"),
        LORA.replace("name: lora", "name: lora_${now:%H}"),
    ],
)
def test_environment_in_a_key_of_the_run_id_is_refused(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECRET_TOKEN", "hush")
    folder = group_file(tmp_path, "method", text)
    with pytest.raises(ConfigError) as caught:
        compose_run(["model=micro", "method=theirs", "output_root=${oc.env:SECRET_TOKEN}"], [folder])
    assert "method.name" in str(caught.value) and "hush" not in str(caught.value).replace("hush'", "")
    with pytest.raises(ConfigError, match=r"protocol\.source"):
        compose_run(["model=micro", "protocol.source=${oc.env:SECRET_TOKEN}"])


@pytest.mark.parametrize(
    "word",
    [
        "eval.also=['${oc.env:SECRET_TOKEN}']",
        "eval.also=[boolq,'${oc.decode:${oc.env:SECRET_TOKEN}}']",
        "eval.also=['${data.root}']",
    ],
)
def test_environment_in_a_list_is_refused(word: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET_TOKEN", "hush")
    with pytest.raises(ConfigError, match=r"eval\.also.*without the environment"):
        compose_run(["model=micro", word, "data.root=${oc.env:SECRET_TOKEN}"])


def test_environment_in_a_list_of_method_options_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET_TOKEN", "q_proj")
    text = (
        "name: peft\ntype: lora\ntargets: ${protocol.targets}\noptions: {target_modules: ['${oc.env:SECRET_TOKEN}']}\n"
    )
    assert_refused(["method=theirs"], group_file(tmp_path, "method", text), "method.options.target_modules")


def test_environment_may_set_the_output_folder_and_is_not_recorded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SCRATCH_OF_TESTS", str(tmp_path))
    words = [*TINY, "method=lora"]
    config = compose_run([*words, "output_root=${oc.env:SCRATCH_OF_TESTS}/runs"])
    assert config.output_root == f"{tmp_path}/runs"
    record = execute(config, QUIET)
    files = (tmp_path / "runs" / record.run_id).rglob("*.*")
    assert not any(str(tmp_path).encode() in path.read_bytes() for path in files if path.suffix in (".json", ".yaml"))


def test_plan_keeps_the_reference_to_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCRATCH_OF_TESTS", str(tmp_path / "here"))
    plan = tiny_plan(tmp_path, "output_root=${oc.env:SCRATCH_OF_TESTS}/runs", "seed=0,1")
    assert plan.manifest.placing["output_root"] == "${oc.env:SCRATCH_OF_TESTS}/runs"
    monkeypatch.setenv("SCRATCH_OF_TESTS", "/there")
    moved = read(plan.folder)
    (name, _) = moved.manifest.runs
    assert moved.configuration(name, {}).output_root == "/there/runs" and root_of(moved, {}) == Path("/there/runs")
    assert placing.parse(["output_root=${oc.env:SCRATCH_OF_TESTS}/x"]) == {"output_root": "/there/x"}
    monkeypatch.delenv("SCRATCH_OF_TESTS")
    with pytest.raises(ConfigError, match="an environment variable that is set"):
        root_of(read(plan.folder), {})


# ---- size

NESTED_ALIASES = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 12)
)
HANGING_FILES = {
    "deep nesting": ("x: " + "[" * 2000 + "]" * 2000, "nested at most 32 deep"),
    "nested aliases": (NESTED_ALIASES, "at most 100,000 values"),
    "long file": ("x: " + "y" * 1_100_000, "at most 1,000,000 bytes"),
    "number in base 60": ("x: 1" + ":1" * 100_000, "numbers of at most 200 characters"),
    "fraction in base 60": ("x: 1" + ":1" * 400 + ".5", "numbers of at most 200 characters"),
    "long number": ("x: 0x" + "F" * 5000, "numbers of at most 200 characters"),
    "half a surrogate pair": ('x: "\\ud800"', "text of whole characters"),
    **{f"tag {tag}": (f"x: !!{tag} abc", "values without tags") for tag in ("bool", "int", "timestamp", "binary")},
}


@pytest.mark.parametrize("name", HANGING_FILES)
def test_file_that_would_hang_a_command_is_refused(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text, message = HANGING_FILES[name]
    folder = group_file(tmp_path, "method", text)
    assert_refused(["method=theirs"], folder, message, "method/theirs.yaml")
    group_file(tmp_path, "sweep", text)
    assert main(["plan", "sweep=theirs", "--config-dir", folder, "--folder", str(tmp_path / "plan")]) == 2
    assert message in capsys.readouterr().err


INVALID_YAML = {
    "dash": "x: -", "tab": "x:\n\t- y", "key": "? [a]\n: b", "merge": "<<: 3", "digits": "x: 0b_", "zero byte": "\0",
    "long key": "k" * 5000 + ": 1",
}  # fmt: skip


@pytest.mark.parametrize("name", INVALID_YAML)
def test_invalid_yaml_is_refused_by_run_plan_and_slurm(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = group_file(tmp_path, "method", INVALID_YAML[name])
    assert_refused(["method=theirs"], folder, "theirs", "files that compose")
    group_file(tmp_path, "sweep", INVALID_YAML[name])
    assert main(["plan", "sweep=theirs", "--config-dir", folder, "--folder", str(tmp_path / "plan")]) == 2
    assert "a YAML file" in capsys.readouterr().err
    with pytest.raises(ConfigError, match="slurm"):
        configure(["slurm=theirs"], [group_file(tmp_path, "slurm", INVALID_YAML[name])])


def test_invalid_yaml_of_a_choice_that_the_run_does_not_use_is_refused(tmp_path: Path) -> None:
    folder = group_file(tmp_path, "protocol_method/quick", "x: -", name="sds_lora")  # sds_lora is the default method
    assert_refused(["method=lora"], folder, "sds_lora", "files that compose")


@pytest.mark.parametrize("key", ["", ".", "rank.x", "a.b.c"])
def test_key_with_dots_or_without_a_name_is_refused(key: str, tmp_path: Path) -> None:
    """A key in a YAML file may contain a dot, which separates sections elsewhere."""
    assert_refused(
        ["method=theirs"], group_file(tmp_path, "method", f"{LORA}\n'{key}': 3\n"), f"method.{key}", "a key of method"
    )
    environment = group_file(tmp_path / "environment", "method", f"{LORA}\n'{key}': ${{oc.env:HOME}}\n")
    assert_refused(["method=theirs"], environment, f"method.{key}", "a value without the environment")


def test_method_options_may_name_layers_with_dots(tmp_path: Path) -> None:
    folder = group_file(tmp_path, "method", "name: peft\ntype: lora\noptions: {rank_pattern: {model.layers.0: 4}}\n")
    assert compose_run(["method=theirs"], [folder]).method.options == {"rank_pattern": {"model.layers.0": 4}}


def test_missing_value_is_refused(tmp_path: Path) -> None:
    assert_refused(
        ["method=theirs"],
        group_file(tmp_path, "method", re.sub("dropout:.*", "dropout: ???", LORA)),
        "method.dropout",
        "a number",
    )


@pytest.mark.parametrize("text", ["name: [", "\x00", "a: b: c", "rank: " + "9" * 5000], ids=lambda text: text[:9])
def test_invalid_group_file_is_one_problem_of_every_command(
    text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = group_file(tmp_path, "method", text)
    for first in (["show"], ["plan", "seed=0,1"], ["-m", "seed=0,1"]):
        assert main([*first, "model=micro", "method=theirs", "--config-dir", folder]) == 2
        error = capsys.readouterr().err
        assert "sdsbench: bad configuration, 1 problem" in error and "Traceback" not in error


OUT_OF_RANGE = [
    (["plan", "seed=range(0,1e9)"], "at most 100,000 values"),
    (["plan", "seed=range(0,1000)", "train.lr=range(1,1000)"], "at most 100,000 runs"),
    (["-m", "seed=range(0,1e9)"], "at most 100,000 values"),
    (["-m", "seed=range(0,1000)", "train.lr=range(1,1000)"], "at most 100,000 runs"),
    (["task.prompt='\udcff'"], "text in UTF-8"),
    (["plan", "task.prompt='\udcff'"], "text in UTF-8"),
    (["seed=" + "9" * 30], "a whole number from 0 to below 4,294,967,296"),
    (["plan", "seed=0," + "9" * 30], "a whole number from 0 to below"),
    (["output_root="], "a text that is not empty"),
    (["data.root="], "a text that is not empty"),
    (["plan", "output_root="], "a text that is not empty"),
]


@pytest.mark.parametrize(("words", "message"), OUT_OF_RANGE, ids=[" ".join(words)[:50] for words, _ in OUT_OF_RANGE])
def test_values_out_of_range_are_refused_and_nothing_is_written(
    words: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main([*words, "model=micro"]) == 2
    text = capsys.readouterr().err
    assert message in text and len(text.splitlines()) <= 3
    assert list(tmp_path.iterdir()) == []


PLACING = [("output_root=", "not empty"), ("output_rot=x", "Did you mean 'output_root'?"), ("seed=3", "frozen")]


@pytest.mark.parametrize(("word", "message"), PLACING, ids=[word for word, _ in PLACING])
def test_invalid_placing_keys_of_a_sweep_are_refused(
    word: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plan = tiny_plan(tmp_path, "seed=0")
    capsys.readouterr()
    assert main(["sweep", str(plan.folder), word]) == 2
    assert message in capsys.readouterr().err


def test_axis_of_a_sweep_file_may_hold_hydra_ranges_and_globs(tmp_path: Path) -> None:
    (tmp_path / "sweep").mkdir()
    (tmp_path / "sweep" / "ranges.yaml").write_text(
        'blocks: [{axes: {seed: ["range(0,3)", 7], method: ["glob(lora_p*)"], method.targets: [[q_proj, v_proj]]}}]\n'
    )
    sweep = define(["sweep=ranges", "model=micro", "data.source=embedded"], [str(tmp_path)])
    (block,) = sweep.blocks
    assert block["seed"] == ["0", "1", "2", "7"]
    assert block["method"] == ["lora_plus", "lora_pro"]
    composer = Composer(sweep.placing)
    configs = [composer.configuration(point) for point in product(block)]
    composer.raise_problems()
    assert [c.seed for c in configs if c] == [0, 0, 1, 1, 2, 2, 7, 7]
    assert configs[0] is not None and configs[0].method.targets == ["q_proj", "v_proj"]


def test_only_choices_from_the_users_files_are_composed_before_hydra_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two choices of method need two compositions; the values of an interval or of 1,000 seeds need none."""
    from sdsbench.cli.shared import hydra_jobs

    folder = group_file(tmp_path, "method", LORA)
    words = ["model=micro", "method=theirs,lora", "train.lr=interval(1e-4,1e-2)", "seed=range(0,1000)"]
    composed: list[object] = []
    real = hydra_jobs.compose_tree
    monkeypatch.setattr(hydra_jobs, "compose_tree", lambda *given: composed.append(given) or real(*given))
    assert hydra_jobs._problems_of_choices(words, [folder]) == []
    assert len(composed) == 2


ALIAS_BOMB = "a0: &a0 {x: 1}\n" + "".join(f"a{i}: &a{i} {{l: *a{i - 1}, r: *a{i - 1}}}\n" for i in range(1, 30))
"""A kilobyte of YAML that would expand to a thousand million values."""


def test_alias_bomb_in_slurm_or_top_level_files_is_refused(tmp_path: Path) -> None:
    folder = group_file(tmp_path, "slurm", ALIAS_BOMB)
    with pytest.raises(ConfigError, match="aliases written out"):
        configure(["slurm=theirs"], [folder])
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "top.yaml").write_text(ALIAS_BOMB)
    assert_refused(["method=lora"], str(tmp_path / "other"), "top.yaml", "aliases written out")


def test_plan_loads_no_plugin_that_lies_beside_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A plugin beside the plan, where `python -m` finds it, is refused; one named only by a run's file is ignored."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    plan = tiny_plan(tmp_path / "received", "seed=0")
    code = "from pathlib import Path\nPath('ran').touch()\n"
    for name in ("plan/theirs.py", "theirs.py", "package/__init__.py"):
        (tmp_path / "received" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "received" / name).write_text(code)
    (identity,) = plan.manifest.runs
    for module in ("received.plan.theirs", "received.theirs", "received.package", "received.package.absent"):
        manifest = plan.manifest.model_copy(update={"placing": plan.manifest.placing | {"plugins": [module]}})
        with pytest.raises(Refused, match="brings no code"):
            Plan(plan.folder, manifest).configuration(identity, {})
    path = plan.folder / "runs" / f"{identity}.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"plugins": ["received.theirs"]}))
    run = plan.manifest.runs[identity].model_copy(update={"sha256": sha256(path.read_bytes()).hexdigest()})
    placing = {key: value for key, value in plan.manifest.placing.items() if key != "plugins"}
    manifest = plan.manifest.model_copy(update={"placing": placing, "runs": {identity: run}})
    assert Plan(plan.folder, manifest).configuration(identity, {}).plugins == []
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("source", ["package", "gguf"])
@pytest.mark.parametrize(
    "location", ["received.package/model", "sdsbench/../../x", "..", "/etc/x", "sdsbench", "json/x", "sdsbench//x"]
)
def test_model_location_is_a_package_name_and_a_path_inside_it(
    source: str, location: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To find a package with a dotted name, Python would import its parent packages and so run their code."""
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "received" / "package").mkdir(parents=True)
    (tmp_path / "received" / "__init__.py").write_text("raise SystemExit('ran')\n")
    with pytest.raises(SdsbenchError) as caught:
        config = compose_run(["model=micro", f"model.source={source}", f"model.location='{location}'"])
        weights_of(config.model)
    assert "model.location" in str(caught.value) or "is not installed" in str(caught.value)
    with pytest.raises(Unavailable, match="is not installed"):
        weights_of(compose_run(["model=micro"]).model.model_copy(update={"source": source, "location": location}))


def test_architecture_must_be_a_shipped_one() -> None:
    with pytest.raises(ConfigError, match=r"model\.architecture"):
        compose_run(["model=micro", "model.architecture='../layers'"])


def test_peft_option_that_names_a_module_is_refused() -> None:
    """PEFT would import the module that `megatron_core` names."""
    pytest.importorskip("peft")
    words = ["model=micro", "method=peft", "+method.options={megatron_config: {a: 1}, megatron_core: antigravity}"]
    with pytest.raises(ConfigError, match=r"method\.options"):
        compose_run([word.replace("+method", "method") for word in words])
