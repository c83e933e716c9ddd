"""`dvc plots`: real DVC on the committed reports; the page opens without internet."""

import json
import re

import pytest

from tests.project import clone, commit, shell

PLOTS = ["coherence", "frechet", "grid", "training"]
METHODS = ["eb_mvae", "eb_mvae_annealed", "poe", "moe", "mopoe", "mvtcae"]


@pytest.fixture(scope="module")
def revisions(tmp_path_factory):
    """A clone with three commits whose curves differ: `first`, `second` (values doubled), and HEAD (values halved)."""
    folder = clone(tmp_path_factory.mktemp("plots"))
    original = {name: json.loads((folder / f"reports/plots/{name}.json").read_text()) for name in ("coherence", "frechet")}
    for tag, factor in (("first", 1), ("second", 2), ("third", 0.5)):
        for name, rows in original.items():
            (folder / f"reports/plots/{name}.json").write_text(json.dumps([{**row, "value": factor * row["value"]} for row in rows]))
        commit(folder, tag) if factor != 1 else None
        shell(folder, "git", "tag", tag)
    return folder, original


def page(folder, *arguments):
    """The HTML that `dvc plots` makes, and its Vega-Lite specs by plot."""
    shell(folder, "dvc", "plots", *arguments, "--out", "dvc_plots")
    html = (folder / "dvc_plots/index.html").read_text()
    specs = [json.JSONDecoder().raw_decode(html, found.end())[0] for found in re.finditer(r"var spec = ", html)]
    return html, {spec["title"]: spec for spec in specs}


def values(spec):
    return spec["data"]["values"]


@pytest.mark.parametrize("arguments, revs", [(["show"], {"workspace"}), (["diff", "first", "second"], {"first", "second"}),
                                             (["diff", "first", "second", "third"], {"first", "second", "third"})])
def test_curves_of_every_revision_are_overlaid(revisions, arguments, revs):
    folder, original = revisions
    html, specs = page(folder, *arguments)
    assert len(specs) == len(PLOTS)
    for name, title in (("coherence", "Coherence by number of observed modalities"), ("frechet", "Frechet distance by number of observed modalities")):
        rows = values(specs[title])
        assert {row["rev"] for row in rows} == revs
        assert len(rows) == len(revs) * len(original[name])
        for rev, factor in (("first", 1), ("second", 2), ("third", 0.5)):
            if rev in revs:
                assert [row["value"] for row in rows if row["rev"] == rev] == pytest.approx([factor * row["value"] for row in original[name]])
        line, color = specs[title]["spec"]["layer"][0], specs[title]["spec"]["encoding"]["color"]
        assert line["encoding"]["strokeDash"]["field"] == "rev"
        assert (color["field"], color["scale"]["domain"]) == ("method", METHODS)
        band = specs[title]["spec"]["layer"][1]["encoding"]  # of the seeds
        assert (band["y"]["field"], band["y2"]["field"]) == ("low", "high")
        assert all(row["low"] <= row["value"] <= row["high"] for row in original[name])
        assert any(row["low"] < row["high"] for row in original[name])
    for figure in ("figure1", "figure2", "figure3"):  # side by side, one a revision
        assert len(re.findall(rf"<img[^>]*{figure}[^>]*>", html)) == len(revs)


def test_the_page_opens_without_internet(revisions):
    html, _ = page(revisions[0], "show")
    assert not re.search(r"<(script|link|img|iframe)[^>]*(src|href)\s*=\s*[\"']?(https?:)?//", html)
    for library in ("vega 5", "vega-lite 5", "vega-embed 6"):
        assert f"/* {library}." in html


def test_the_grid_shows_every_method_in_the_order_of_the_figures(revisions):
    _, specs = page(revisions[0], "show")
    grid = specs["The full grid"]
    assert [half["facet"]["column"]["sort"] for half in grid["vconcat"]] == [METHODS] * 2
    assert [half["spec"]["encoding"]["color"]["field"] for half in grid["vconcat"]] == ["coherence", "distance"]
    assert {row["method"] for row in values(grid)} == set(METHODS)
