"""slurm.* options: time limits as SLURM reads them, users' cluster files, and values that are refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from sdsbench.core.errors import ConfigError
from sdsbench.sweeps.slurm_config import SlurmConfig, configure, time_limit_seconds


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90", 5400), ("4:00", 240), ("100:00:00", 360000), ("2-0", 172800), ("2-12:30", 217800),
        ("1-00:00:30", 86430), ("4h", 14400), ("30m", 1800), ("2d", 172800),
    ],
)  # fmt: skip
def test_time_limits_are_read_as_slurm_reads_them(text: str, seconds: int) -> None:
    config = configure([f"slurm.time={text}", "slurm.signal_seconds=1"])
    assert config.seconds == seconds == time_limit_seconds(config.time_limit)


def test_users_cluster_file_inherits_from_a_shipped_one(tmp_path: Path) -> None:
    (tmp_path / "slurm").mkdir()
    file = tmp_path / "slurm" / "mine.yaml"
    file.write_text("defaults: [gpu]\npartition: long\naccount: abc\n")
    mine, gpu = configure(["slurm=mine"], [str(tmp_path)]), configure([])
    assert (mine.partition, mine.account) == ("long", "abc")
    assert mine.model_copy(update={"partition": None, "account": None}) == gpu
    file.write_text("defaults: [gpu]\ntime: 4:00\n")  # YAML reads 240, without a unit
    with pytest.raises(ConfigError, match="in quotes in a file"):
        configure(["slurm=mine"], [str(tmp_path)])


@pytest.mark.parametrize(
    "word",
    [
        'slurm.memory="--wrap=x"', "slurm.memory='4G\n#SBATCH --wrap=x'", 'slurm.partition="--wrap=x"',
        "slurm.account=%x",
        "slurm.qos='a b'", "slurm.constraint=--wrap", 'slurm.container="--bind=/etc"', "slurm.extra=['a\n#SBATCH -W']",
        'slurm.extra=["rm -rf"]', "slurm.mail_user=-x", "slurm.mail_type=[SOMETIMES]", "slurm.binds=['-x']",
        "slurm.time=tomorrow", "slurm.time=1:0:0", "slurm.signal_seconds=86400", "slurm.gpus=-1",
    ],
)  # fmt: skip
def test_values_that_would_add_an_option_or_a_line_are_refused(word: str) -> None:
    with pytest.raises(ConfigError) as caught:
        configure([word])
    assert [problem.key for problem in caught.value.problems] == [word.partition("=")[0]]


ALLOWED = {("extra", "--wrap=x"), *((key, text) for key in ("binds", "container") for text in ("a%b", "a b"))}


@pytest.mark.parametrize("value", ["--wrap=x", "a\n#SBATCH --wrap=x", "--a\n#SBATCH --wrap=x", "a%b", "a b"])
def test_every_text_value_of_the_script_is_checked(value: str) -> None:
    """This finds a new key without a check; `setup` is left out because it is lines of the job's own script."""
    texts = {key: str(field.annotation) for key, field in SlurmConfig.model_fields.items() if key != "setup"}
    keys = [key for key, kind in texts.items() if "str" in kind or "Literal" in kind]
    assert len(keys) == 12
    for key in keys:
        if (key, value) not in ALLOWED:
            with pytest.raises(ConfigError) as caught:
                configure([f"slurm.{key}=['{value}']" if "list" in texts[key] else f"slurm.{key}='{value}'"])
            assert caught.value.problems[0].key.startswith(f"slurm.{key}"), key
