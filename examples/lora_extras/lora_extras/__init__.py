"""Two methods, a task, a table, a claim and a figure for sdsbench; importing this module registers them.

The folder conf/ has the YAML of the methods and the task.
"""

from pathlib import Path

from lora_extras import init_ab, lora_one, word_reversal  # noqa: F401
from sdsbench.results.claims.claim_files import register_claims
from sdsbench.results.figures import register_figure
from sdsbench.results.tables.table_registry import register_table

register_table("extras/word_reversal", f"{__name__}.results:word_reversal")
register_claims("lora_extras", Path(__file__).with_name("claims.yaml"))
register_figure("extras/losses", f"{__name__}.results:losses", "Training loss on word reversal, mean over seeds.")
