"""Cached SVDs are used for the same weight, rank, algorithm and seed only, and do not change results."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import save_file

from sdsbench.methods import svd_cache
from sdsbench.methods.linear_algebra import truncated_svd
from tests.methods.tiny import tiny_session


@pytest.fixture(autouse=True)
def _folder(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("SDSBENCH_CACHE", str(tmp_path))
    monkeypatch.setattr(svd_cache, "WORTH_CACHING", 0)


def test_second_call_reads_the_cache_and_any_other_key_computes() -> None:
    weight = torch.randn(6, 5, generator=torch.Generator().manual_seed(0))
    calls = []

    def compute():
        calls.append(1)
        return truncated_svd(weight, 2)

    first = svd_cache.cached_triples(weight, 2, "exact", 0, compute)
    second = svd_cache.cached_triples(weight, 2, "exact", 0, compute)
    assert len(calls) == 1 and all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    changed = weight.clone()
    changed[0, 0] += 1e-6
    for key in ((changed, 2, "exact", 0), (weight, 1, "exact", 0), (weight, 2, "fast", 0), (weight, 2, "exact", 1)):
        svd_cache.cached_triples(*key, compute)
    svd_cache.cached_triples(weight.bfloat16(), 2, "exact", 0, compute)
    assert len(calls) == 6


def test_planted_factors_are_computed_again(tmp_path) -> None:
    weight = torch.randn(6, 5, generator=torch.Generator().manual_seed(0))
    first = svd_cache.cached_triples(weight, 2, "exact", 0, lambda: truncated_svd(weight, 2))
    (file,) = tmp_path.rglob("*.safetensors")
    save_file({name: torch.zeros_like(part).contiguous() for name, part in zip("USV", first, strict=True)}, file)
    computed = svd_cache.cached_triples(weight, 2, "exact", 0, lambda: truncated_svd(weight, 2))
    assert all(torch.equal(a, b) for a, b in zip(first, computed, strict=True))


@pytest.mark.parametrize("name", ["pissa", "lora_xs"])
@pytest.mark.parametrize("svd", ["fast", "exact"])
def test_start_is_the_same_with_a_cold_and_a_warm_cache(name: str, svd: str, tmp_path) -> None:
    cold = tiny_session(name, svd=svd)
    assert len(list((tmp_path / "svd").glob("*/*.safetensors"))) == len(cold.layers)
    warm = tiny_session(name, svd=svd)
    for cold_layer, warm_layer in zip(cold.layers.values(), warm.layers.values(), strict=True):
        for key, tensor in cold_layer.method_tensors().items():
            assert torch.equal(tensor, warm_layer.method_tensors()[key]), key
    assert not list((tmp_path / "svd").glob(".*")), "no temporary file is left"
