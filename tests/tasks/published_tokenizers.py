"""Tokenizers built from the vocabulary files of two packages, as authors/README.md describes.

The packages are no dependencies: a test that needs one is skipped without it. Only their files are read, no code runs.
"""

from __future__ import annotations

import base64
import importlib.util
import struct
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from tokenizers import AddedToken, Regex, Tokenizer, decoders, normalizers, pre_tokenizers
from tokenizers.models import BPE
from tokenizers.processors import TemplateProcessing

LLAMA3_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
    r"|\s+(?!\S)|\s+"
)


def mistral() -> Any:
    """mistral_7b_v0.1 from a sentencepiece file: a space before each text, and bytes for characters in no piece."""
    pieces = list(_pieces(_file_of("mistral_common", "data/tokenizer.model.v1").read_bytes()))
    numbers = {text: number for number, (text, _) in enumerate(pieces)}
    merges = [
        (score, text[:cut], text[cut:])
        for text, score in pieces
        for cut in range(1, len(text))
        if text[:cut] in numbers and text[cut:] in numbers
    ]
    merges.sort(key=lambda merge: (-merge[0], numbers[merge[1] + merge[2]], numbers[merge[1]]))
    pairs = [(left, right) for _, left, right in merges]
    tokenizer = Tokenizer(BPE(numbers, pairs, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    return _with_special_tokens(tokenizer, {"<unk>": 0, "<s>": 1, "</s>": 2}, "<s>", "</s>")


def llama3() -> Any:
    """llama3 from a tiktoken file, whose ranks give the order of merges."""
    lines = _file_of("llama_models", "llama3/tokenizer.model").read_text().splitlines()
    ranks = {base64.b64decode(text): int(rank) for text, rank in (line.split() for line in lines if line)}
    characters = _characters_of_bytes()
    vocabulary = {"".join(characters[byte] for byte in token): rank for token, rank in ranks.items()}
    merges = [
        tuple("".join(characters[byte] for byte in part) for part in parts)
        for token, rank in sorted(ranks.items(), key=lambda item: item[1])
        if len(token) > 1 and len(parts := _last_two(token, ranks, rank)) == 2
    ]
    tokenizer = Tokenizer(BPE(vocabulary, merges, ignore_merges=True))
    words = pre_tokenizers.Split(Regex(LLAMA3_WORDS), "isolated")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [words, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    return _with_special_tokens(
        tokenizer, {"<|begin_of_text|>": 128000, "<|end_of_text|>": 128001}, "<|begin_of_text|>", "<|end_of_text|>"
    )


def _file_of(package: str, path: str) -> Path:
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        pytest.skip(f"the vocabulary file of the package {package} is needed")
    return Path(next(iter(spec.submodule_search_locations))) / path


def _with_special_tokens(tokenizer: Tokenizer, special: dict[str, int], begin: str, end: str) -> Any:
    from transformers import PreTrainedTokenizerFast

    tokenizer.add_special_tokens([AddedToken(text, special=True, normalized=False) for text in special])
    assert all(tokenizer.token_to_id(text) == number for text, number in special.items())
    tokenizer.post_processor = TemplateProcessing(single=f"{begin} $A", special_tokens=[(begin, special[begin])])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token=begin, eos_token=end, pad_token=end)


def _pieces(model: bytes) -> Iterator[tuple[str, float]]:
    """Text and score of every piece of a sentencepiece file: a protocol buffer; field 1 repeats, with fields 1, 2."""
    for field, value in _fields(model):
        if field == 1:
            piece = dict(_fields(value))
            yield piece[1].decode(), piece.get(2, 0.0)


def _fields(message: bytes) -> Iterator[tuple[int, Any]]:
    """Number and value of each field of a protocol buffer's message."""
    place = 0
    while place < len(message):
        key, place = _number(message, place)
        if key & 7 == 0:
            value, place = _number(message, place)
            yield key >> 3, value
            continue
        length, place = _number(message, place) if key & 7 == 2 else (4, place)
        value = message[place : place + length]
        yield key >> 3, value if key & 7 == 2 else struct.unpack("<f", value)[0]
        place += length


def _number(message: bytes, place: int) -> tuple[int, int]:
    """The variable-length integer at this position, and the position after it."""
    value = shift = 0
    while True:
        byte = message[place]
        value |= (byte & 127) << shift
        place, shift = place + 1, shift + 7
        if byte < 128:
            return value, place


def _characters_of_bytes() -> dict[int, str]:
    """The character with which byte-level tokenizers write a byte: itself if visible, else one from 256 on."""
    visible = [*range(33, 127), *range(161, 173), *range(174, 256)]
    hidden = [byte for byte in range(256) if byte not in visible]
    return {byte: chr(byte) for byte in visible} | {byte: chr(256 + i) for i, byte in enumerate(hidden)}


def _last_two(token: bytes, ranks: dict[bytes, int], below: int) -> list[bytes]:
    """The two parts that a token's last merge joins: its bytes after all merges of a rank below `below`."""
    parts = [bytes([byte]) for byte in token]
    while True:
        found = [(ranks.get(a + b, below), i) for i, (a, b) in enumerate(pairwise(parts))]
        rank, place = min(found, default=(below, 0))
        if rank >= below:
            return parts
        parts[place : place + 2] = [parts[place] + parts[place + 1]]
