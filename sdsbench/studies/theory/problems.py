"""Synthetic problems with a known solution: a linear layer, a target weight, and the target's condition number.

    factorisation   min_W 1/2 |W - W*|_F^2
    regression      min_W 1/(2 t) |X W^T - Y|_F^2,   X_tn ~ N(0, 1),  Y = X W*^T + noise

W* = W0 + D, where D has rank k and singular values decreasing geometrically from `size` to size / condition. W0 is a
random frozen weight, so that methods which initialise from its SVD can be used. All in fp64.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from sdsbench.core.errors import Problem as Wrong

KINDS = ("factorisation", "regression")


@dataclass(frozen=True)
class Setting:
    """The parameters of a problem family; together with a seed they define one problem."""

    kind: str = "factorisation"
    m: int = 24
    n: int = 20
    rank: int = 4  # of the target D, and of the adapters
    condition: float = 1.0
    size: float = 10.0  # largest singular value of D
    noise: float = 0.0  # standard deviation of the noise on the targets

    def problems(self) -> Iterator[Wrong]:
        """What is wrong with these values, one item per wrong key."""
        if self.kind not in KINDS:
            yield Wrong("problem", self.kind, ", ".join(KINDS))
        if not 1 <= self.rank <= min(self.m, self.n):
            yield Wrong("rank", self.rank, f"1 to {min(self.m, self.n)}, the smaller side of {self.m} x {self.n}")
        if self.condition < 1:
            yield Wrong("condition", self.condition, "a number from 1")
        if self.noise < 0:
            yield Wrong("noise", self.noise, "a number from 0")


@dataclass(frozen=True)
class LinearProblem:
    """loss(W) = weight / 2 |x W^T - y|_F^2."""

    base_mn: Tensor
    x_tn: Tensor
    y_tm: Tensor
    weight: float

    def residual(self, output_tm: Tensor) -> Tensor:
        """Gradient of the loss by the output, t x m."""
        return self.weight * (output_tm - self.y_tm)

    def loss(self, output_tm: Tensor) -> Tensor:
        """The loss of an output (t x m), a scalar."""
        return 0.5 * self.weight * (output_tm - self.y_tm).square().sum()


def make(setting: Setting, seed: int) -> LinearProblem:
    """Draw the problem of a setting for `seed`."""
    rng = np.random.default_rng([seed, setting.m, setting.n, setting.rank])
    u_mk = np.linalg.qr(rng.standard_normal((setting.m, setting.rank)))[0]
    v_nk = np.linalg.qr(rng.standard_normal((setting.n, setting.rank)))[0]
    sigma_k = setting.size * np.geomspace(1, 1 / setting.condition, setting.rank)
    base_mn = rng.standard_normal((setting.m, setting.n)) / np.sqrt(setting.n)
    target_mn = base_mn + (u_mk * sigma_k) @ v_nk.T
    samples = setting.n if setting.kind == "factorisation" else 4 * setting.n
    x_tn = np.eye(setting.n) if setting.kind == "factorisation" else rng.standard_normal((samples, setting.n))
    y_tm = x_tn @ target_mn.T + setting.noise * rng.standard_normal((samples, setting.m))
    weight = 1.0 if setting.kind == "factorisation" else 1 / samples
    return LinearProblem(torch.from_numpy(base_mn), torch.from_numpy(x_tn), torch.from_numpy(y_tm), weight)
