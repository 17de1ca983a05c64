"""LoRA-SB (Ponkshe et al., arXiv 2411.19557 v4, section 3 and algorithm 1): W = W0 + s B R A, only R_rr trains, s = 1.

The start imitates one signed step of full fine-tuning. With g_mn the sum of dL/dW over a few training rows:

    dW = -eta sign(g) = U S V^T,   B = U_r,   A = V_r^T,   R = S_r / s

W0 is left alone, so training starts at W0 + U_r S_r V_r^T. eta is a number, the learning rate (`paper`), learning
rate / warm-up steps (`warmup`), or what the authors' code makes of that (`code`; train_arithmetic.py, train_cr.py): its
steps are the batches of the loader that the gradients come from, eta = learning rate / (warm-up ratio x epochs x
ceil(rows / gradient_batch)), 3.00e-7 for math and 2.93e-6 for commonsense. A batch of k rows there adds the gradient
of its mean loss over k, with dropout on, and a model in bf16 adds in bf16, where some sums are 0 (gradient_utils.py).

Ablations of the paper are switches: start from a Kaiming matrix or from dW with noise, fewer or more rows, no sign, and
no gradient approximation (B = U_r S_r, A = V_r^T, R = I).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from sdsbench.core.lazy import torch
from sdsbench.core.section import Count, FromZero, PositiveNumber, only_where
from sdsbench.methods.base import Alpha, Branch, DataContext, Layers, LowRankConfig, Method, register
from sdsbench.methods.initial import kaiming_uniform
from sdsbench.methods.linear_algebra import randomised_svd, truncated_svd
from sdsbench.methods.masters import as_master

if TYPE_CHECKING:
    from torch import Tensor

    from sdsbench.methods.layer import AdaptedLinear

SVD_KINDS = {"oversampled": (16, 4), "authors": (0, 10), "exact": None}  # (oversampling, iterations)
_GRADIENT = only_where(start="gradient")


class LoRASBConfig(LowRankConfig):
    name: str = "lora_sb"
    alpha: Alpha = Field(1.0, description="the factor s itself")
    eta: Annotated[PositiveNumber | Literal["warmup", "paper", "code"], _GRADIENT] = Field(
        "warmup",
        description="size of the initial step: a number, learning rate / warm-up steps (warmup), learning rate (paper) "
        "or as in the authors' code",
    )
    sign: Annotated[bool, _GRADIENT] = Field(
        True, description="start from the sign of the summed gradients, or from the sum"
    )
    start: Literal["gradient", "kaiming"] = Field("gradient", description="the matrix that the start approximates")
    sample_fraction: Annotated[float, only_where(start="gradient", samples=None)] = Field(
        0.001, gt=0, le=1, description="share of the training rows whose gradients are summed (at least one row)"
    )
    samples: Annotated[Count | None, _GRADIENT] = Field(
        None, description="rows whose gradients are summed; null: sample_fraction decides"
    )
    gradient_batch: Annotated[Count, _GRADIENT] = Field(
        1,
        description="rows of one backward pass; k rows add the gradient of their mean loss over k (the authors' code)",
    )
    gradient_dropout: Annotated[bool, _GRADIENT] = Field(
        False, description="dropout inside the base is on for these gradients (the authors' code)"
    )
    gradient_dtype: Annotated[Literal["float32", "bfloat16"], _GRADIENT] = Field(
        "float32", description="number format in which these gradients are summed, and of eta times the sign"
    )
    noise_std: FromZero = Field(0.0, description="standard deviation of noise added to the step before its SVD")
    approximation: bool = Field(True, description="put the singular values into R, or into B with R = I")
    svd: Literal["oversampled", "authors", "exact"] = Field(
        "oversampled", description="16 extra directions and 4 iterations, none and 10 iterations, or exact"
    )
    factor_dtype: Literal["float32", "bfloat16"] = Field(
        "float32", description="rounding of A and B and of the singular values in R's start"
    )
    r_dtype: Literal["float32", "bfloat16"] = Field(
        "float32", description="number format of R, its gradients and its moments"
    )


@register("lora_sb", LoRASBConfig)
class LoRASB(Method):
    config: LoRASBConfig
    title = "LoRA-SB"
    arxiv = "2411.19557"
    trains_between_fixed_factors = True

    def __init__(self, config: LoRASBConfig) -> None:
        super().__init__(config)
        self.trained_dtype = None if config.r_dtype == "float32" else config.r_dtype

    def scale(self) -> float:
        return self.config.alpha

    def create(self, layer: AdaptedLinear, generator: torch.Generator) -> None:
        rank, (m, n) = self.config.rank, layer.shape
        layer.add_buffer("A", torch.zeros(rank, n))
        layer.add_buffer("B", torch.zeros(m, rank))
        layer.add_parameter("R", torch.zeros(rank, rank))

    def branches(self, layer: AdaptedLinear) -> list[Branch]:
        return [(layer.B, layer.R @ layer.A)]

    def prepare(self, layers: Layers, context: DataContext) -> dict[str, float]:
        config = self.config
        eta, gradients, facts = 0.0, dict[str, "Tensor"](), dict[str, float]()
        if config.start == "gradient":
            eta = self._eta(context)
            rows = config.samples or max(1, round(config.sample_fraction * context.train_rows))
            rows = min(rows, context.train_rows)
            facts = {"eta": eta, "gradient_rows": float(rows)}
            dtype = None if config.gradient_dtype == "float32" else getattr(torch, config.gradient_dtype)
            gradients = context.summed_gradients(layers, rows, config.gradient_batch, config.gradient_dropout, dtype)
        kept = []
        for name, layer in layers.items():
            step_mn = self._first_step(layer, gradients.pop(name, None), eta, context.generator)
            kept.append(self._start_at(layer, step_mn, context.generator))
        return {**facts, "first_step_kept": sum(kept) / len(kept)}

    def _eta(self, context: DataContext) -> float:
        """The size of the first step."""
        match self.config.eta:
            case "paper":
                return context.learning_rate
            case "warmup":
                return context.learning_rate / max(1, context.warmup_steps)
            case "code":
                batches = math.ceil(context.train_rows / self.config.gradient_batch)
                return context.learning_rate / max(1.0, context.warmup_ratio * context.epochs * batches)
            case eta:
                return eta

    def _first_step(
        self, layer: AdaptedLinear, gradient_mn: Tensor | None, eta: float, generator: torch.Generator
    ) -> Tensor:
        """dW_mn, the dense step that the start approximates, in fp32 on the layer's device."""
        m, n = layer.shape
        if gradient_mn is None:
            step_mn = kaiming_uniform(m, n, generator)
        else:
            step_mn = -eta * (gradient_mn.sign() if self.config.sign else gradient_mn)
        if self.config.noise_std:
            step_mn = step_mn + self.config.noise_std * torch.randn(m, n, generator=generator)
        return as_master(step_mn).to(layer.weight.device)

    def _start_at(self, layer: AdaptedLinear, step_mn: Tensor, generator: torch.Generator) -> float:
        """Set B, R, A to the best rank-r approximation of the step; returns the share of |dW|_F^2 that it keeps."""
        config = self.config
        settings = SVD_KINDS[config.svd]
        if settings is None:
            u_mr, s_r, v_nr = truncated_svd(step_mn, config.rank)
        else:
            u_mr, s_r, v_nr = randomised_svd(step_mn, config.rank, generator, *settings)
        factor_dtype = getattr(torch, config.factor_dtype)
        with torch.no_grad():
            if config.approximation:
                layer.B.copy_(u_mr.to(factor_dtype))
                layer.R.copy_(torch.diag(s_r.to(factor_dtype)) / self.scale())
            else:
                layer.B.copy_((u_mr * s_r).to(factor_dtype))
                layer.R.copy_(torch.eye(config.rank))
            layer.A.copy_(v_nr.t().to(factor_dtype))
            layer.R.copy_(layer.R.to(getattr(torch, config.r_dtype)))
        return float(s_r.square().sum() / step_mn.square().sum().clamp_min(torch.finfo(torch.float32).tiny))
