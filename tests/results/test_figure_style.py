"""Figure style: each method has its own colour and marker, a plugin's too; figures have names for screen readers."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from matplotlib.figure import Figure

from sdsbench.methods.base import METHODS
from sdsbench.results.figure_style import Palette, drawing, save
from sdsbench.results.tables.titles import method_order, method_title


def test_every_method_has_its_own_colour_and_marker() -> None:
    others = [f"other{number}" for number in range(40)]
    palette = Palette(others)
    styles = [palette.style(name) for name in (*METHODS.names(), *others)]
    assert len({style["color"] for style in styles}) == len({str(style["marker"]) for style in styles}) == len(styles)


def test_shipped_methods_keep_their_style_beside_plugins() -> None:
    assert Palette([]).style("lora") == Palette(["a_new_one", "lora"]).style("lora")


def test_variants_share_the_marker_and_differ_in_colour_line_and_fill() -> None:
    plain, other = Palette([]).style("sds_lora"), Palette([]).style("sds_lora", 1)
    assert plain["marker"] == other["marker"] and plain["color"] != other["color"]
    assert plain["linestyle"] != other["linestyle"] and other["markerfacecolor"] == "white"


def test_titles_are_declared_by_the_method_and_not_inherited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(METHODS, "_values", dict(METHODS._values))  # undoes the registration below
    assert method_title("sds_lora", 8) == "SDS-LoRA, r 8" and method_title("rslora") == "rsLoRA"
    lora, _ = METHODS.lookup("lora")
    inherits = type("Inherits", (lora,), {})
    METHODS.register("inherits_from_lora", (inherits, METHODS.lookup("lora")[1]))
    assert method_title("peft", None, "method.options.r=15, method.type=miss") == "peft miss, r 15"
    assert method_title("inherits_from_lora") == "inherits_from_lora"
    assert method_title("../../no such module") == "../../no such module"


def test_methods_are_ordered_by_their_papers() -> None:
    names = sorted(["sds_lora", "unknown", "dora", "full_ft", "lora", "pissa"], key=method_order)
    assert names == ["full_ft", "lora", "dora", "pissa", "sds_lora", "unknown"]


def test_figures_have_names_and_no_generated_ids(tmp_path: Path) -> None:
    with drawing():
        figure = Figure()
        axes = figure.subplots()
        axes.scatter([1], [1]).set_urls(["runs/abc.html"])
        axes.set_xlabel("rate")
    svg = save(figure, tmp_path / "f", 'scores of "x" <b>')
    assert 'role="group" aria-label="scores of &quot;x&quot; &lt;b&gt;"' in svg
    assert '<a xlink:href="runs/abc.html" aria-label="run abc"' in svg
    assert ">rate</text>" in svg, "text is not drawn as paths"
    assert not re.search(r' id="[A-Za-z0-9.]+_[0-9]+"', svg)
