"""The memory model at real shapes against a count of live tensors: meta tensors, CUDA's attention kernels."""

from __future__ import annotations

import pytest
import torch

from benchmarks.contestants import Pad, builder
from benchmarks.counted import META, count, kernels_of_cuda
from benchmarks.workloads import every_example_long, random_model
from sdsbench.runs.configuration.compose import compose_run
from sdsbench.sweeps.memory_model import training_memory

BATCH, LENGTH, RANK = 4, 512, 32


@pytest.mark.parametrize("name", ["lora", "dora", "sds_lora", "lora_xs"])
@pytest.mark.parametrize("architecture", ["llama3.2_3b", "mistral_7b"])
def test_the_model_is_a_little_above_the_count(architecture: str, name: str) -> None:
    """It has attention outputs twice, as on a CPU; the GPU's kernel keeps them once."""
    base = random_model(architecture, torch.bfloat16, META)
    workload = every_example_long(BATCH, LENGTH)
    with kernels_of_cuda():
        counted = count(builder(name, base, Pad(), RANK, workload)(), workload, 1)["peak_bytes"]
    config = compose_run([f"model={architecture}", f"method={name}", "task=gsm8k", f"method.rank={RANK}"])
    targets = sum(example.targets for example in workload.batch(0))
    modelled = training_memory(config, [LENGTH] * BATCH, targets, 2)
    assert modelled is not None
    assert counted <= modelled.total <= 1.06 * counted
