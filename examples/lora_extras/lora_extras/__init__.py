"""Two methods and a task for sdsbench. Importing this module registers them; conf/ contains their YAML files."""

from lora_extras import init_ab, lora_one, word_reversal  # noqa: F401
