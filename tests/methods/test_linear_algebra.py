"""Orthonormal bases of well and ill-conditioned factors, SVDs of products, Sylvester equations and randomised SVDs."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sdsbench.methods import linear_algebra as la


def matrix_of_condition(rows: int, rank: int, condition: float, seed: int = 0) -> torch.Tensor:
    """A matrix of this condition number in which every column has a part of every singular vector."""
    generator = torch.Generator().manual_seed(seed)
    u = torch.linalg.qr(torch.randn(rows, rank, generator=generator, dtype=torch.float64))[0]
    v = torch.linalg.qr(torch.randn(rank, rank, generator=generator, dtype=torch.float64))[0]
    spectrum = torch.logspace(0, -float(torch.tensor(condition).log10()), rank, dtype=torch.float64)
    return (u * spectrum @ v.t()).float()


def deviation_from_orthonormal(q: torch.Tensor) -> float:
    return float((q.double().t() @ q.double() - torch.eye(q.shape[1], dtype=torch.float64)).abs().max())


@pytest.mark.parametrize("condition", [1, 1e2, 1e4, 1e6, 1e8])
def test_bases_are_orthonormal_at_every_condition_number(condition: float) -> None:
    tall = [matrix_of_condition(96, 16, condition, seed) for seed in range(3)] + [matrix_of_condition(50, 8, condition)]
    for x, q in zip(tall, la.orthonormal_columns(tall), strict=True):
        assert deviation_from_orthonormal(q) <= 1e-5
        residual = x.double() - q.double() @ (q.double().t() @ x.double())
        assert residual.norm() <= 1e-5 * x.norm(), "Q spans the columns of X"
        assert ((q * x).sum(0) > 0).all() or condition > 1e6, "signs follow the columns"


def test_bases_of_orthogonal_columns_of_different_lengths_are_their_directions() -> None:
    x = torch.linalg.qr(torch.randn(40, 6, generator=torch.Generator().manual_seed(0)))[0] * torch.logspace(0, -12, 6)
    torch.testing.assert_close(la.orthonormal_columns([x])[0], torch.nn.functional.normalize(x, dim=0))


def test_rank_deficient_and_zero_factors_get_orthonormal_bases() -> None:
    x = torch.randn(20, 4, generator=torch.Generator().manual_seed(0))
    x[:, 2] = x[:, 1]
    for q in la.orthonormal_columns([x, torch.zeros(20, 4)]):
        assert deviation_from_orthonormal(q) <= 1e-5


def test_ill_conditioned_factor_does_not_change_others_in_the_batch() -> None:
    well_conditioned, ill_conditioned = matrix_of_condition(40, 8, 10), matrix_of_condition(40, 8, 1e8)
    torch.testing.assert_close(
        la.orthonormal_columns([well_conditioned, ill_conditioned])[0], la.orthonormal_columns([well_conditioned])[0]
    )


def test_thin_qr_has_a_non_negative_diagonal_and_the_right_product() -> None:
    x = torch.randn(3, 10, 4, generator=torch.Generator().manual_seed(0))
    q, r = la.thin_qr(x)
    torch.testing.assert_close(q @ r, x)
    assert (r.diagonal(dim1=-2, dim2=-1) >= 0).all()


@settings(max_examples=20)
@given(m=st.integers(4, 12), n=st.integers(4, 12), rank=st.integers(1, 4), seed=st.integers(0, 99))
def test_product_svd_and_sum_norm_equal_the_dense_ones(m: int, n: int, rank: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    b, a = torch.randn(2, m, rank, generator=generator), torch.randn(2, rank, n, generator=generator)
    u, sigma, v = la.product_svd(b, a)
    torch.testing.assert_close(u * sigma.unsqueeze(1) @ v.mT, b @ a, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(sigma, torch.linalg.svdvals(b @ a)[:, :rank], rtol=1e-4, atol=1e-4)
    assert max(deviation_from_orthonormal(q) for q in (*u, *v)) < 1e-5
    b2, a2 = torch.randn(2, m, rank, generator=generator), torch.randn(2, rank, n, generator=generator)
    torch.testing.assert_close(
        la.sum_norm(b, a, b2, a2), torch.linalg.matrix_norm(b @ a + b2 @ a2), rtol=1e-4, atol=1e-4
    )


def test_product_svd_of_a_zero_product_has_orthonormal_columns() -> None:
    u, sigma, v = la.product_svd(torch.zeros(1, 9, 3), torch.randn(1, 3, 7))
    assert (
        deviation_from_orthonormal(u[0]) < 1e-5 and deviation_from_orthonormal(v[0]) < 1e-5 and sigma.abs().max() == 0
    )


def test_sylvester_solves_its_equation() -> None:
    generator = torch.Generator().manual_seed(0)
    p, q, c = (torch.randn(2, 5, 5, generator=generator, dtype=torch.float64) for _ in range(3))
    p, q = p @ p.mT, q @ q.mT
    x = la.sylvester(la.positive_eigh(p), la.positive_eigh(q), c)
    torch.testing.assert_close(p @ x + x @ q, c)
    torch.testing.assert_close(la.inverse(la.positive_eigh(p)) @ p, torch.eye(5, dtype=torch.float64).expand(2, 5, 5))


def test_damping_is_relative_to_the_trace_and_one_at_zero() -> None:
    eigen = la.positive_eigh(torch.diag(torch.tensor([1.0, 3.0])))
    values, _ = la.damped(eigen, 0.5)
    torch.testing.assert_close(values, torch.tensor([2.0, 4.0]))
    assert torch.equal(la.damped(la.positive_eigh(torch.zeros(2, 2)), 0.5)[0], torch.ones(2))


def test_randomised_svd_finds_the_leading_triples_with_the_given_generator() -> None:
    matrix = (
        matrix_of_condition(60, 40, 1e3)
        @ torch.linalg.qr(torch.randn(40, 40, generator=torch.Generator().manual_seed(1)))[0]
    )
    before = torch.random.get_rng_state()
    exact = la.truncated_svd(matrix, 5)
    fast = la.randomised_svd(matrix, 5, torch.Generator().manual_seed(0), oversampling=10, iterations=6)
    for found, expected in zip(fast, exact, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)
    repeated = la.randomised_svd(matrix, 5, torch.Generator().manual_seed(0), oversampling=10, iterations=6)
    assert all(torch.equal(first, second) for first, second in zip(fast, repeated, strict=True))
    assert torch.equal(before, torch.random.get_rng_state())
    assert not torch.equal(fast[0], la.randomised_svd(matrix, 5, torch.Generator().manual_seed(1), 10, 6)[0])
