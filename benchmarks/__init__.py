"""Benchmarks of speed and memory against peft and lm-eval (docs/speed.md)."""

import sdsbench  # noqa: F401  # before torch: it sets variables that OpenMP reads at load
