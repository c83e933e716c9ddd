"""The templates of `dvc plots`: every revision overlaid, no list of methods, no internet."""

import json
import re
from pathlib import Path

import pytest
import yaml
from dvc_render import VegaRenderer

from ebmvae.methods import METHODS

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / ".dvc/plots"
TEMPLATES = {file.stem: file.read_text() for file in FOLDER.glob("*.json")}


def test_no_method_stands_in_a_template():
    for name, text in TEMPLATES.items():
        assert not [method for method in METHODS if f'"{method}"' in text], name


def test_every_template_is_of_a_plot():
    outs = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]["report"]["plots"]
    named = {options.get("template") for plot in outs for options in plot.values()}
    assert named - {None} == TEMPLATES.keys()


def rendered(name, rows, x, y):
    """The Vega-Lite specification that DVC makes of rows of two revisions."""
    rows = [{**row, "rev": rev} for rev in ("first", "second") for row in rows]
    options = {"template": name, "template_dir": str(FOLDER), "x": x, "y": y}
    renderer = VegaRenderer(rows, name, **options)
    spec = renderer.get_filled_template()
    assert spec["data"]["values"] == rows and "<DVC" not in json.dumps(spec)
    fields = set(re.findall(r'"field": "(\w+)"', json.dumps(spec)))
    return spec, fields


def test_curves_of_all_revisions_are_overlaid_with_their_bands():
    row = {"method": "b", "target": "m1", "n_observed": 1, "value": 2.0, "low": 1.0, "high": 3.0}
    spec, fields = rendered("by_observed", [row], "n_observed", "value")
    assert fields == {*row, "rev"}
    line, band, _ = spec["spec"]["layer"]
    assert line["encoding"]["strokeDash"]["field"] == "rev"
    assert (band["encoding"]["y"]["field"], band["encoding"]["y2"]["field"]) == ("low", "high")
    colour = spec["spec"]["encoding"]["color"]  # in the order of the rows
    assert (colour["field"], colour["sort"], colour["scale"]) == (
        ("method", None, {"scheme": "tableau10"})
    )


def test_the_grid_shows_methods_in_the_order_of_the_rows():
    row = {"method": "b", "target": "m1", "observed": "m2", "n_observed": 1, "coherence": 0.5}
    spec, fields = rendered("grid", [{**row, "fid": 3.0}], "observed", "coherence")
    assert fields == {*row, "rev", "distance"}  # the distance is that of either name
    assert [half["facet"]["column"]["sort"] for half in spec["vconcat"]] == [None, None]


@pytest.mark.parametrize("library", ["vega 5", "vega-lite 5", "vega-embed 6"])
def test_the_page_brings_its_libraries_and_fetches_nothing(library):
    html = (FOLDER / "page.html").read_text()
    assert f"/* {library}." in html
    assert not re.search(r"<(script|link|img|iframe)[^>]*(src|href)\s*=\s*[\"']?(https?:)?//", html)
