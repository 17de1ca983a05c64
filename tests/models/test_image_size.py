"""model.image_size: at a new size the model computes as transformers does with interpolated positions."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from transformers import (
    ConvNextConfig,
    ConvNextForImageClassification,
    Dinov2Config,
    Dinov2ForImageClassification,
    ViTForImageClassification,
)

import sdsbench
from sdsbench.__main__ import main
from sdsbench.core.errors import ConfigError
from sdsbench.models.image_size import set_image_size_
from sdsbench.models.load import load
from sdsbench.runs.configuration.combinations import known_architecture
from sdsbench.runs.configuration.compose import compose_run
from sdsbench.runs.configuration.identity import run_id

VIT = Path(sdsbench.__file__).parent / "synthetic" / "vit_micro"
MICRO = VIT.parent / "micro"
IMAGES = ["model=vit_micro", "task=vision/dtd10", "data.source=embedded"]


def test_vit_logits_equal_interpolated_positions_of_transformers() -> None:
    """The library interpolates at each forward pass on request; sdsbench resamples the position table once."""
    theirs = ViTForImageClassification.from_pretrained(VIT, local_files_only=True).eval()
    config = compose_run([*IMAGES, f"model.image_size={2 * theirs.config.image_size}"]).model
    loaded = load(config, torch.float32)
    side = loaded.model.config.image_size
    assert side == 2 * theirs.config.image_size
    pixels_bchw = torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected_bc = theirs(pixels_bchw, interpolate_pos_encoding=True).logits
        assert torch.equal(loaded.model(pixels_bchw).logits, expected_bc)


def test_dinov2_logits_are_unchanged_and_the_new_size_is_saved(tmp_path: Path) -> None:
    torch.manual_seed(0)
    facts = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "image_size": 56, "patch_size": 14}
    model = Dinov2ForImageClassification(Dinov2Config(**facts)).eval()
    pixels_bchw = torch.randn(2, 3, 28, 28)
    with torch.no_grad():
        expected_bc = model(pixels_bchw).logits
        set_image_size_(model, 28)
        assert torch.equal(model(pixels_bchw).logits, expected_bc)
        model.save_pretrained(tmp_path)
        again = Dinov2ForImageClassification.from_pretrained(tmp_path, local_files_only=True).eval()
        assert again.config.image_size == 28 and torch.equal(again(pixels_bchw).logits, expected_bc)


def test_sizes_of_partial_patches_and_models_without_positions_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"model\.image_size=33.*a multiple of 8"):
        compose_run([*IMAGES, "model.image_size=33"])
    with pytest.raises(ConfigError, match=r"model\.image_size=28.*no table of positions"):
        set_image_size_(ConvNextForImageClassification(ConvNextConfig(depths=[1] * 4, hidden_sizes=[4] * 4)), 28)


def test_image_size_is_part_of_the_architecture_and_of_the_run_id() -> None:
    small, large = (compose_run([*IMAGES, *words]) for words in ([], ["model.image_size=64"]))
    found = known_architecture(large.model)
    assert found is not None and found.config_json["image_size"] == 64
    assert run_id(small) != run_id(large)
    text = ["model=local", "model.family=decoder", f"model.location={MICRO}"]
    assert run_id(compose_run([*text, "model.image_size=64"])) == run_id(compose_run(text))


@pytest.mark.parametrize("method", ["lora", "full_ft"])
def test_exported_model_and_adapter_agree_at_the_new_size(
    method: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """At the new size, the PEFT adapter on the unchanged base gives the logits of the exported merged model."""
    words = [*IMAGES, "protocol=quick", f"method={method}", "model.image_size=64", "train.max_steps=2"]
    more = ["eval.limit=4", "eval.untrained=false", "train.save=all", f"output_root={tmp_path}/runs"]
    assert main([*words, *more]) == 0
    (run,) = (tmp_path / "runs").iterdir()
    assert main(["export", str(run), str(tmp_path / "merged"), "--form", "merged"]) == 0
    assert json.loads((tmp_path / "merged/preprocessor_config.json").read_text())["size"] == {"height": 64, "width": 64}
    pixels_bchw = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    plain = ViTForImageClassification.from_pretrained(tmp_path / "merged", local_files_only=True).eval()
    again = [*IMAGES[1:], f"model.location={tmp_path}/merged", "model.source=folder"]
    assert load(compose_run(["model=vit_micro", *again]).model, torch.float32).model.config.image_size == 64
    if method == "full_ft":
        return
    capsys.readouterr()
    assert main(["export", str(run), str(tmp_path / "peft")]) == 0
    assert "images of 64 x 64" in capsys.readouterr().out
    base = ViTForImageClassification.from_pretrained(
        VIT, local_files_only=True, num_labels=plain.config.num_labels, ignore_mismatched_sizes=True
    )
    adapted = PeftModel.from_pretrained(base, tmp_path / "peft").eval()
    with torch.no_grad():
        found_bc = adapted(pixels_bchw, interpolate_pos_encoding=True).logits
        assert torch.allclose(found_bc, plain(pixels_bchw).logits, atol=1e-5)


def test_text_model_ignores_image_size_and_keeps_a_preprocessor_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The folder of a text model may hold preprocessor_config.json, and model.image_size does not change it."""
    shutil.copytree(MICRO, tmp_path / "model")
    (tmp_path / "model/preprocessor_config.json").write_text('{"size": {"height": 8, "width": 8}}')
    words = ["model=local", "model.family=decoder", f"model.location={tmp_path}/model", "model.image_size=64"]
    more = ["task=gsm8k", "data.source=embedded", "protocol=quick", "method=lora", "train.max_steps=1", "eval.limit=1"]
    last = ["eval.untrained=false", "task.max_new_tokens=2", "train.save=all", f"output_root={tmp_path}/runs"]
    assert main([*words, *more, *last]) == 0
    (run,) = (tmp_path / "runs").iterdir()
    assert main(["export", str(run), str(tmp_path / "merged"), "--form", "merged"]) == 0
    kept = (tmp_path / "merged/preprocessor_config.json").read_bytes()
    assert kept == (tmp_path / "model/preprocessor_config.json").read_bytes()
    assert main(["export", str(run), str(tmp_path / "peft")]) == 0
    assert "images of" not in capsys.readouterr().out
