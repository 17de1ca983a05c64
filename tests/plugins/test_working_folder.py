"""`sdsbench` and `python -m sdsbench` are one command: both find a plugin that lies in the working folder."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

METHOD = """
from sdsbench.methods.base import LowRankConfig, register
from sdsbench.methods.lora import LoRA


class BesideConfig(LowRankConfig):
    name: str = "beside"


@register("beside", BesideConfig)
class Beside(LoRA):
    pass
"""


@pytest.mark.parametrize("command", ["module", "script"])
def test_plugin_in_the_working_folder_is_found(command: str, tmp_path: Path) -> None:
    (tmp_path / "beside_plugin.py").write_text(METHOD)
    (tmp_path / "conf" / "method").mkdir(parents=True)
    (tmp_path / "conf" / "method" / "beside.yaml").write_text("name: beside\ntargets: [all-linear]\nrank: 4\n")
    # What pip writes for the entry point `sdsbench` of pyproject.toml.
    script = "import sys; sys.path.pop(0); from sdsbench.__main__ import script; sys.exit(script())"
    program = ["-m", "sdsbench"] if command == "module" else ["-c", script]
    words = ["show", "plugins=[beside_plugin]", "method=beside", "model=micro"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    done = subprocess.run(
        [sys.executable, *program, *words], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0 and "method.name" in done.stdout, done.stderr
