"""Speed and memory against peft and lm-eval."""

import sdsbench  # noqa: F401  # before torch: it sets what OpenMP reads when it loads
