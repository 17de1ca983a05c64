"""Measures of spectra compared with direct fp64 SVDs and with values known by construction."""

from __future__ import annotations

import math

import pytest
import torch

from sdsbench.training.probes.spectra import (
    condition_number,
    cosine,
    effective_rank,
    intruder_dimensions,
    principal_angles,
    singular_values,
    spectra,
    stable_rank,
)


def matrix_of_spectrum(m: int, n: int, values: torch.Tensor, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    u = torch.linalg.qr(torch.randn(m, len(values), generator=generator, dtype=torch.float64))[0]
    v = torch.linalg.qr(torch.randn(n, len(values), generator=generator, dtype=torch.float64))[0]
    return (u * values) @ v.T


@pytest.mark.parametrize("shape", [(12, 20), (20, 12), (9, 9)])
def test_spectra_equal_the_svd(shape: tuple[int, int]) -> None:
    batch = torch.randn(3, *shape, generator=torch.Generator().manual_seed(1))
    found = spectra(batch)
    torch.testing.assert_close(found.values, torch.linalg.svdvals(batch.double()), rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(singular_values(batch), found.values)
    rebuilt = (found.left * found.values.unsqueeze(1)) @ found.right.mT
    torch.testing.assert_close(rebuilt, batch.double(), rtol=1e-9, atol=1e-9)


def test_ranks_and_condition_numbers_of_known_spectra() -> None:
    flat = singular_values(matrix_of_spectrum(30, 20, torch.ones(5, dtype=torch.float64))[None])[0]
    assert effective_rank(flat) == pytest.approx(5, rel=1e-4) and stable_rank(flat) == pytest.approx(5)
    values = torch.tensor([4.0, 2.0, 1.0], dtype=torch.float64)
    share = values / 7
    assert effective_rank(values) == pytest.approx(math.exp(-float((share * share.log()).sum())))
    assert stable_rank(values) == pytest.approx(21 / 16)
    assert condition_number(values) == 4
    zero = torch.zeros(3)
    assert all(math.isnan(f(zero)) for f in (effective_rank, stable_rank, condition_number))


def test_cosine_of_parallel_opposite_and_orthogonal_matrices() -> None:
    left = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    assert cosine(left, 3 * left) == pytest.approx(1) and cosine(left, -left) == pytest.approx(-1)
    assert cosine(left, torch.tensor([[0.0, 1.0], [1.0, 0.0]])) == 0
    assert math.isnan(cosine(left, torch.zeros(2, 2)))


def test_small_and_large_principal_angles_are_exact() -> None:
    basis = torch.eye(6, 2, dtype=torch.float64)
    turned = basis.clone()
    turned[:, 0] = torch.tensor([math.cos(1e-9), 0, math.sin(1e-9), 0, 0, 0], dtype=torch.float64)
    turned[:, 1] = torch.tensor([0, math.cos(1.2), 0, math.sin(1.2), 0, 0], dtype=torch.float64)
    mixed = basis @ torch.tensor([[1.0, 5.0], [0.0, 0.01]], dtype=torch.float64)  # the same span, badly conditioned
    torch.testing.assert_close(principal_angles(mixed, turned), torch.tensor([1e-9, 1.2], dtype=torch.float64))
    assert principal_angles(torch.zeros(6, 2), turned).isnan().all()


def test_intruder_dimensions_are_counted() -> None:
    base = matrix_of_spectrum(40, 30, torch.linspace(10, 1, 30, dtype=torch.float64))
    u, _, vh = torch.linalg.svd(base)
    after = base + 50 * torch.outer(u[:, 30], vh[29])  # a strong left direction that the base weight does not have
    assert intruder_dimensions(spectra(base[None]).left[0], spectra(after[None]).left[0]) == 1
    assert intruder_dimensions(spectra(base[None]).left[0], spectra(base[None]).left[0]) == 0
