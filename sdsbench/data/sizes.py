"""Sizes of the public data sets, for estimates of time and memory before any data is loaded.

Rows are those of the sets as published. Tokens were counted, with SmolLM2's tokenizer for text (the prompt template
included) and MiniLM's for sentences, on the rows that could be had; MetaMathQA's are those at which LoRA-SB's printed
seconds an epoch of Mistral-7B and of Gemma-2 9B give the same rate (their Table 6). Figures marked ~ are guessed from a
similar set, not counted.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Size:
    """Size of one data set. Image sets have tokens = 0, since the number of patches depends on the model."""

    train: int
    test: int  # rows of the split that is scored
    tokens: float = 0.0  # mean of a row: prompt and response, or the sentences
    deviation: float = 0.0  # standard deviation of that number over rows
    response: float = 0.0  # mean of the response, part of `tokens`; what a trained model generates


_GLUE = {
    "cola": Size(8551, 1043, 11.4, 4.1),
    "rte": Size(2490, 277, 70.7, 41.7),
    "mrpc": Size(3668, 408, 53.3, 13.0),
    "stsb": Size(5749, 1500, 27.8, 14.3),
    "qnli": Size(104743, 5463, 49.4, 17.7),
    "sst2": Size(67349, 872, 13.7, 10.0),
    "mnli": Size(392702, 9815, 40, 17),  # ~
    "mnli_mismatched": Size(0, 9832, 40, 17),  # ~
    "qqp": Size(363846, 40430, 31, 14),  # ~
    "wnli": Size(635, 71, 38, 13),  # ~
}
_COMMONSENSE = {
    "boolq": Size(9427, 3270, 67, 2, 6),
    "piqa": Size(16113, 1838, 120, 49, 6),
    "social_i_qa": Size(33410, 1954, 105, 8, 6),
    "hellaswag": Size(39905, 10042, 247, 62, 6),
    "winogrande": Size(63238, 1267, 92, 4, 6),
    "arc_easy": Size(2251, 2376, 115, 21, 6),
    "arc_challenge": Size(1119, 1172, 125, 24, 6),
    "openbookqa": Size(4957, 500, 100, 12, 6),
}
_VISION = {
    "cifar100": Size(50000, 10000),
    "resisc45": Size(18900, 6300),
    "food101": Size(75750, 25250),
    "dtd": Size(3760, 1880),
    "cub200": Size(5994, 5794),
    "cars": Size(8144, 8041),
    "sun397": Size(76128, 21750),
    "cifar10": Size(50000, 10000),
    "dtd10": Size(600, 300),
}
_VTAB_TEST = {
    "caltech101": 6084, "cifar100": 10000, "dtd": 1880, "flowers102": 6149, "pets": 3669, "svhn": 26032,
    "sun397": 21750, "camelyon": 32768, "eurosat": 5400, "resisc45": 6300, "retinopathy": 42670, "clevr-count": 15000,
    "clevr-dist": 15000, "dmlab": 22735, "kitti-dist": 711, "dsprites-loc": 73728, "dsprites-ori": 73728,
    "smallnorb-azim": 12150, "smallnorb-elev": 12150,
}  # fmt: skip

SIZES: Mapping[str, Size] = {
    "gsm8k": Size(7473, 1319, 191, 56, 101),
    "hendrycks_math": Size(7500, 5000, 357, 269, 248),
    "math500": Size(0, 500, 357, 269, 248),
    "metamathqa": Size(395000, 0, 230, 110, 140),
    "metamath_style_derived": Size(14573, 0, 272, 198, 175),
    "commonsense_170k": Size(170420, 0, 103, 39, 6),
    "commonsense_170k_sample": Size(20000, 0, 103, 39, 6),
    **_COMMONSENSE,
    **{f"glue/{name}": size for name, size in _GLUE.items()},
    **{f"vision/{name}": size for name, size in _VISION.items()},
    **{f"vtab/{name}": Size(1000, test) for name, test in _VTAB_TEST.items()},
}
UNKNOWN = SIZES["gsm8k"]  # assumed for a set that is not listed


def of(data_set: str) -> Size:
    """The size of a data set of the catalogue; GSM8K's size if it is not listed."""
    return SIZES.get(data_set, UNKNOWN)
