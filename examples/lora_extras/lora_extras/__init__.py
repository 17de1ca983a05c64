"""Two methods and a task for sdsbench. Importing this module registers them; its conf/ holds their YAML."""

from lora_extras import init_ab, lora_one, word_reversal  # noqa: F401
