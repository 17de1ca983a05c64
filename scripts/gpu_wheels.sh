#!/usr/bin/env bash
# Collect into FOLDER the wheels that sdsbench and its tests need on an x86-64 machine that has torch, transformers and
# peft but no network, at the versions of requirements.lock. Then, there: scripts/gpu_suite.sh --wheels FOLDER OUT
#
#   scripts/gpu_wheels.sh FOLDER [VERSION OF PYTHON, 3.12]
set -euo pipefail
folder=$(realpath -m "${1:?usage: gpu_wheels.sh FOLDER [PYTHON VERSION]}") version=${2:-3.12}
cd "$(dirname "$0")/.."
python=${PYTHON:-python3}
mkdir -p "$folder"
names='hydra-core omegaconf pydantic pydantic-core annotated-types typing-inspection datasets dill multiprocess xxhash evaluate lm-eval sacrebleu portalocker tabulate pytablewriter
  DataProperty mbstrdecoder tabledata tcolorpy typepy pathvalidate more-itertools zstandard math-verify
  latex2sympy2-extended gguf chardet torchao pytest pluggy iniconfig hypothesis sortedcontainers'
platforms=()
for tag in manylinux_2_28 manylinux_2_27 manylinux_2_24 manylinux_2_17 manylinux2014; do platforms+=(--platform "${tag}_x86_64"); done
pin() { grep -iE "^${1//-/[-_]}==" requirements.lock; } # package names may be spelt with - or _

for name in $names; do
  "$python" -m pip download --quiet --no-deps --only-binary=:all: --python-version "$version" --implementation cp \
    "${platforms[@]}" -d "$folder" "$(pin "$name")"
done
for name in antlr4-python3-runtime rouge-score sqlitedict word2number; do # published as sources only
  "$python" -m pip wheel --quiet --no-deps -w "$folder" "$(pin "$name")"
done
du -sh "$folder"
