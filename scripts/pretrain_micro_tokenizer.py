"""The micro model's tokenizer: byte-level BPE, one token per digit, lossless for any text."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

from scripts.pretrain_micro_text import HEADER, RESPONSE, tokenizer_text

VOCABULARY = 1024
POSITIONS = 512
SPECIAL = ("<pad>", "<bos>", "<eos>")
# A digit, an operator with its spaces, a word with its leading space, other marks, or spaces; together any text.
PIECES = r" [-+*/=] |[0-9]| ?\p{L}+| ?[^\s\p{L}0-9]+|\n+|\s+(?!\S)|\s+"


def train_tokenizer(seed: int) -> Tokenizer:
    """Train the tokenizer; the two parts of the prompt template become one token each."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PIECES), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY - 2,
        special_tokens=list(SPECIAL),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(tokenizer_text(np.random.default_rng([seed, 1])), trainer)
    tokenizer.add_tokens([AddedToken(text, normalized=False) for text in (HEADER, RESPONSE)])
    return tokenizer


def save_tokenizer(tokenizer: Tokenizer, folder: Path) -> None:
    """Write the two files that AutoTokenizer reads."""
    tokenizer.save(str(folder / "tokenizer.json"))
    pad, bos, eos = SPECIAL
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "pad_token": pad,
        "bos_token": bos,
        "eos_token": eos,
        "padding_side": "left",
        "model_max_length": POSITIONS,
        "clean_up_tokenization_spaces": False,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n")
