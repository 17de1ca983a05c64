"""The key-value cache with reserved columns against transformers' DynamicCache."""

from __future__ import annotations

import pytest
import torch
from transformers import AutoConfig, DynamicCache

from sdsbench.evaluation.key_value_cache import ReservedLayer, reserved_cache, static_cache

LLAMA = AutoConfig.for_model("llama", num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, head_dim=8)


def keys_and_values(columns: int, generator: torch.Generator, rows: int = 3) -> list[torch.Tensor]:
    return [torch.randn(rows, 2, columns, 8, generator=generator) for _ in range(2)]


def test_reserved_cache_equals_dynamic_cache() -> None:
    generator = torch.Generator().manual_seed(0)
    reserved, dynamic = reserved_cache(LLAMA, 9), DynamicCache(config=LLAMA)
    rows = 3
    for columns in (5, 1, 1, 1):
        new = keys_and_values(columns, generator, rows)
        for found, expected in zip(reserved.update(*new, 1), dynamic.update(*new, 1), strict=True):
            assert torch.equal(found, expected)
        assert reserved.get_seq_length(1) == dynamic.get_seq_length(1)
        assert reserved.get_mask_sizes(1, 1) == dynamic.get_mask_sizes(1, 1)
        if columns == 1 and rows == 3:
            for cache in (reserved, dynamic):
                cache.batch_select_indices(torch.tensor([2, 0]))
            rows = 2


def test_step_does_not_copy_earlier_columns() -> None:
    generator = torch.Generator().manual_seed(0)
    cache = reserved_cache(LLAMA, 8)
    keys, values = cache.update(*keys_and_values(5, generator), 0)
    more_keys, more_values = cache.update(*keys_and_values(1, generator), 0)
    assert (keys.data_ptr(), values.data_ptr()) == (more_keys.data_ptr(), more_values.data_ptr())


@pytest.mark.parametrize(("first", "more"), [(4, 1), (2, 3)])
def test_more_columns_than_reserved_are_refused(first: int, more: int) -> None:
    generator = torch.Generator().manual_seed(0)
    cache = reserved_cache(LLAMA, 4)
    cache.update(*keys_and_values(first, generator), 0)
    with pytest.raises(ValueError, match="5 columns do not fit a cache reserved for 4"):
        cache.update(*keys_and_values(more, generator), 0)


def test_rows_are_reordered_and_repeated_as_in_dynamic_cache() -> None:
    generator = torch.Generator().manual_seed(0)
    reserved, dynamic = reserved_cache(LLAMA, 9), DynamicCache(config=LLAMA)
    first, more = keys_and_values(4, generator), keys_and_values(1, generator, rows=6)
    for cache in (reserved, dynamic):
        cache.update(*first, 0)
        cache.reorder_cache(torch.tensor([2, 1, 0]))
        cache.batch_repeat_interleave(2)
    for found, expected in zip(reserved.update(*more, 0), dynamic.update(*more, 0), strict=True):
        assert torch.equal(found, expected)


@pytest.mark.parametrize(("capacity", "reserved"), [(16, True), (17, False)])
def test_layers_with_a_window_shorter_than_the_cache_are_those_of_transformers(capacity: int, reserved: bool) -> None:
    facts = {"num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8}
    layers = reserved_cache(AutoConfig.for_model("gemma2", sliding_window=16, **facts), capacity).layers
    assert [isinstance(layer, ReservedLayer) for layer in layers] == [reserved, True]


def test_static_cache_writes_the_newest_column_and_reads_a_bucket() -> None:
    """Unused columns are zero, whatever the memory held: they are masked, but a nan would still spread."""
    generator = torch.Generator().manual_seed(0)
    cache, dynamic = reserved_cache(LLAMA, 8), DynamicCache(config=LLAMA)
    first, more = keys_and_values(3, generator), keys_and_values(1, generator)
    for layer in range(2):
        cache.update(*first, layer)
        dynamic.update(*first, layer)
        for buffer in cache.layers[layer].buffers:
            buffer[:, :, 3:] = torch.nan
    newest = torch.tensor([3])
    static = static_cache(cache, newest)
    for layer in static.layers:
        layer.columns = 6
    assert static.get_mask_sizes(1, 0) == (6, 0)
    for found, expected in zip(static.update(*more, 1), dynamic.update(*more, 1), strict=True):
        assert found.shape[2] == 6
        assert torch.equal(found[:, :, :4], expected)
        assert not found[:, :, 4:].any()
    cache.layers[1].use(4)
    assert torch.equal(cache.layers[1].keys, dynamic.layers[1].keys)
