"""Studies of papers: their tables and claims, figures of probes, the theory bench, the recommendation of a method.

This package is a plugin (core/plugins.py) declared in pyproject.toml; importing it registers everything below.
"""

from __future__ import annotations

from sdsbench.results.claims.claim_files import PAPERS, register_claims
from sdsbench.results.figures import register_figure
from sdsbench.results.tables.table_registry import register_table

_TABLES = {
    ("lora_sb", "lora_sb_paper"): (
        "table1", "table2", "table3", "table3_last_epoch", "table4", "table5", "table6", "table7",
    ),
    ("lora_sb", "lora_sb_settings"): ("table8", "table9"),
    ("sds_lora", "sds_lora_paper"): (
        "math", "commonsense_gemma_2b", "commonsense_llama3_8b", "vision_vit_base", "vision_vit_large",
    ),
    ("dora", "dora_paper"): ("commonsense_llama3_8b", "commonsense_llama2_7b"),
    ("lora_pro", "lora_pro_paper"): ("gsm8k",),
    ("lr_matters", "lr_matters_paper"): ("rates",),
}  # fmt: skip
"""(paper, module of paper_tables/) -> its functions, named like the tables that they define."""

for (_paper, _module), _functions in _TABLES.items():
    for _function in _functions:
        register_table(f"{_paper}/{_function}", f"{__name__}.paper_tables.{_module}:{_function}")

_FIGURES = {
    "effective_rank": "exp(entropy of the normalised singular values) of the first-order change of W that the method "
    "makes for G, and of G itself. Line: mean over seeds of the median over layers; band: range over seeds.",
    "alignment": "Cosine with the full gradient (1: same direction). Above: first-order change under plain gradient "
    "descent; below: the optimizer's actual step, against G of the probe rows.",
    "anisotropy": "Gain of the gradient along the update's singular directions. Flat: the method treats them alike. "
    "Decreasing: directions with large singular values get more of the gradient.",
    "spectra": "Singular values of A, B and dW: median over layers and seeds, relative to the largest.",
    "factors": "Condition numbers of A and B (largest by smallest singular value); undefined while B is 0.",
    "bases": "Mean squared cosine between the subspace that the method projects G on and G's leading subspace.",
    "updates": "Size and effective rank of the change of W since the start.",
    "loss": "Training loss of the runs with probes: mean over seeds, running mean of 5 steps.",
    "refresh_jumps": "Change of dW when the bases are recomputed (refresh); variants without refreshes have no marks.",
    "by_layer_type": "Alignment with the full gradient by type of layer: mean over probed steps, layers, and seeds.",
    "by_depth": "Alignment with the full gradient by block: mean over probed steps, layers, and seeds.",
}
"""Name of each figure of probe_figures/geometry.py -> its caption."""

for _name, _caption in _FIGURES.items():
    register_figure(_name, f"{__name__}.probe_figures.geometry:{_name}", _caption)

if PAPERS.is_file():  # an installed wheel has no results/ folder
    register_claims("papers", PAPERS)
