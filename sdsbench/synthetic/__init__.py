"""Replacements for hub downloads: generated data, two small models, and readers for models inside Python packages.

This package is a plugin (core/plugins.py) declared in pyproject.toml; importing it registers everything below.
"""

from __future__ import annotations

from sdsbench.data.generators import register_generator
from sdsbench.models.readers import register_reader

_GENERATORS = {
    "word_problems": {"gsm8k": "rows"},
    "metamath_rows": {"metamathqa": "rows"},
    "word_problems_math": {"hendrycks_math": "math_rows", "math500": "math500_rows"},
    "commonsense_rows": {
        "commonsense_170k": "mixture_rows",
        **{
            name: f"{name}_rows"
            for name in (
                "boolq", "piqa", "social_i_qa", "hellaswag", "winogrande", "arc_easy", "arc_challenge", "openbookqa",
            )
        },
    },
    "sentence_rows": {
        **{
            f"glue/{name}": f"{name}_rows"
            for name in ("cola", "rte", "mrpc", "stsb", "qnli", "sst2", "mnli", "qqp", "wnli")
        },
        "glue/mnli_mismatched": "mnli_rows",
    },
    "digits": {
        "vision/cifar10": "cifar10_rows",
        "vision/cifar100": "cifar100_rows",
        **{
            name: "rows"
            for name in (
                "vision/resisc45", "vision/food101", "vision/dtd", "vision/cub200", "vision/cars", "vision/sun397",
                "vision/dtd10", "vtab/caltech101", "vtab/cifar100", "vtab/dtd", "vtab/flowers102", "vtab/pets",
                "vtab/svhn", "vtab/sun397", "vtab/eurosat", "vtab/resisc45", "vtab/dsprites-loc", "vtab/dsprites-ori",
                "vtab/smallnorb-azim",
            )
        },
        "vtab/camelyon": "rows_2",
        "vtab/kitti-dist": "rows_4",
        "vtab/retinopathy": "rows_5",
        "vtab/clevr-dist": "rows_6",
        "vtab/dmlab": "rows_6",
        "vtab/clevr-count": "rows_8",
        "vtab/smallnorb-elev": "rows_9",
    },
}  # fmt: skip

for _module, _functions in _GENERATORS.items():
    for _data_set, _function in _functions.items():
        register_generator(_data_set, f"{__name__}.{_module}:{_function}")

register_reader("gguf", f"{__name__}.gguf:dequantise")
register_reader("gguf_parts", f"{__name__}.gguf:joined")
register_reader("onnx", f"{__name__}.onnx:backbone")
