"""The page: what of the numbers and images given to it stands where in the HTML. What it does in a browser: tests/browser."""

import base64
import hashlib
import io
import itertools
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from stages.lib import claims, page

ROOT = Path(__file__).parent.parent
NAMES = ["a<b>", "grey", "wide"]
SHAPE = {"a<b>": (3, 10, 12), "grey": (1, 8, 8), "wide": (3, 9, 20)}
METHODS = ("eb_mvae", "eb_mvae_annealed", "poe")
REFERENCES = ("unimodal_vae", "real")
DISTANCE = "frechet_polymnist"
SUBSETS = [s for k in range(3) for s in itertools.combinations(NAMES, k)]
TUPLES, STEPS = 2, (0, 5, 40)
VOID = {"area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "source"}


def coherence(m, target, subset):
    """A number of its own for every cell."""
    return 0.1 + 0.3 * m + 0.03 * SUBSETS.index(subset) + 0.005 * NAMES.index(target)


def distance(m, target, subset):
    return 1000.0 - 300 * m - 10 * SUBSETS.index(subset) - NAMES.index(target)


def rows_of(m):
    return [{"method": METHODS[m], "target": target, "observed": "+".join(subset) or "none", "n_observed": len(subset), "seed": 7,
             "coherence": coherence(m, target, subset) if subset else None, DISTANCE: distance(m, target, subset)}
            for subset in SUBSETS for target in NAMES if target not in subset]


def table_of(shift=0.0):
    """What report.tabulate makes; `shift` makes another seed of it."""
    made = {}
    for m, method in enumerate(METHODS):
        cell = lambda k: {"coherence": 0.1 * (m + 1) + 0.1 * k + shift, DISTANCE: 500 - 100 * m + 10 * k + 1000 * shift}
        made[method] = {name: {f"given{k}": cell(k) for k in (1, 2)} for name in NAMES}
        made[method]["unconditional"] = {"all_agree": 0.25 + 0.25 * m + shift}
    for m, method in enumerate(METHODS[:2]):
        made[method]["energy_auroc"] = 0.5 + 0.25 * m + shift
    for r, method in enumerate(REFERENCES):
        made[method] = {name: {"coherence": 0.9 + 0.05 * r + 0.01 * i + shift, DISTANCE: 40.0 - 10 * r + i, "diversity": 200.0 + 10 * r + i}
                        for i, name in enumerate(NAMES)}
    return made


def flat(name, rows, columns, start):
    """Images uint8 (rows, columns, C, H, W) of one colour each, far from those of the neighbours."""
    colour = lambda k, channel: (start + 97 * k + 61 * channel) % 256
    channels, height, width = SHAPE[name]
    made = np.empty((rows, columns, channels, height, width), np.uint8)
    for r, c, channel in itertools.product(range(rows), range(columns), range(channels)):
        made[r, c, channel] = colour(r * columns + c, channel)
    return made


def inputs(**changed):
    png = io.BytesIO()
    Image.new("RGB", (30, 20), "red").save(png, "PNG")
    verdicts = [{"claim": "eb_mvae's frechet_polymnist falls & <rises>", "holds": True, "measured": "eb_mvae 1 → 2; poe 3", "seeds": []},
                {"claim": "two", "holds": False, "measured": "x", "seeds": [False, False]},
                {"claim": "three", "holds": True, "measured": "x", "seeds": [True, False]}]
    n = {name: sum(name not in subset for subset in SUBSETS) for name in NAMES}
    ways = {method: {"observed": NAMES[0], "steps": list(STEPS), "images": {name: flat(name, len(STEPS), TUPLES, 9) for name in NAMES}}
            for method in METHODS[:2]}
    return {"facts": {"Data": "digits <script>alert(1)</script> & {{data}}", "Code": "abc"}, "names": NAMES, "methods": METHODS,
            "references": REFERENCES, "distance": DISTANCE, "runs": [{"table": table_of()}], "verdicts": verdicts,
            "figures": [("first", 'its "alt" <1>', png.getvalue()), ("second", "two", png.getvalue())],
            "rows": {method: rows_of(m) for m, method in enumerate(METHODS)},
            "cells": {method: {name: flat(name, n[name], TUPLES, 50 * m) for name in NAMES} for m, method in enumerate(METHODS)},
            "real": {name: flat(name, 1, TUPLES, 7)[0] for name in NAMES}, "tuples": ["0", "<3>"],
            "ways": ways, **changed}


class Elements(HTMLParser):
    """Every element as {"tag", "attributes", "text", "inside": tags it stands in}, in document order; fails where tags don't match."""

    def __init__(self, text):
        super().__init__()
        self.all, self.open = [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        assert len({key for key, _ in attributes}) == len(attributes)
        self.all.append({"tag": tag, "attributes": dict(attributes), "text": "", "inside": [e["tag"] for e in self.open]})
        if tag not in VOID:
            self.open.append(self.all[-1])

    def handle_endtag(self, tag):
        assert self.open.pop()["tag"] == tag

    def handle_data(self, data):
        for element in self.open:
            element["text"] += data

    def of(self, *tags):
        return [element for element in self.all if element["tag"] in tags]


def tables(elements):
    """Every table as rows of cells, in document order."""
    made = []
    for element in elements.of("table", "tr", "th", "td"):
        if element["tag"] == "table":
            made.append([])
        elif element["tag"] == "tr":
            made[-1].append([])
        else:
            made[-1][-1].append(element)
    return made


def texts(table):
    return [[" ".join(cell["text"].split()) for cell in row] for row in table]


@pytest.fixture(scope="module")
def html():
    return page.page(**inputs())


@pytest.fixture(scope="module")
def elements(html):
    return Elements(html)


@pytest.fixture(scope="module")
def data(elements):
    return json.loads(next(e["text"] for e in elements.of("script") if e["attributes"].get("id") == "data"))


def test_the_same_inputs_give_the_same_bytes(html):
    backwards = inputs()
    for key in ("cells", "real"):
        backwards[key] = dict(reversed(backwards[key].items()))
    assert page.page(**backwards) == html


# ---- the numbers


def test_every_cell_of_the_grid_has_its_numbers(elements):
    maps = tables(elements)[1:-1]
    assert len(maps) == len(METHODS)
    for m, table in enumerate(maps):
        assert texts(table)[0] == ["observed", *NAMES]
        assert [row[0] for row in texts(table)[1:]] == ["nothing", *(" ".join(subset) for subset in SUBSETS[1:])]
        for subset, row in zip(SUBSETS, texts(table)[1:], strict=True):
            for target, text in zip(NAMES, row[1:], strict=True):
                first = f"{coherence(m, target, subset):.3f}"[1:] if subset else "–"
                assert text == ("observed" if target in subset else f"{first} / {distance(m, target, subset):.0f}")


def test_a_cell_names_its_row_of_the_samples(elements):
    """The order of a target's rows in results.json, which is that of its samples; none where the target is observed."""
    for table in tables(elements)[1:-1]:
        for t, target in enumerate(NAMES, 1):
            found = [row[t]["attributes"].get("data-row") for row in table[1:]]
            free = iter(range(len(SUBSETS)))
            assert found == [None if target in subset else str(next(free)) for subset in SUBSETS]


def test_rows_in_another_order_keep_their_numbers_and_samples():
    rows = {method: rows_of(m)[::-1] for m, method in enumerate(METHODS)}
    table = tables(Elements(page.page(**inputs(rows=rows))))[1]
    subset = next(i for i, row in enumerate(texts(table)) if row[0] == "grey wide")
    cell = 0, "a<b>", ("grey", "wide")
    assert texts(table)[subset][1] == f"{coherence(*cell):.3f} / {distance(*cell):.0f}"[1:]
    assert table[subset][1]["attributes"]["data-row"] == "0"


def test_subsets_that_were_not_drawn_are_blank_and_not_called_observed():
    rows = {method: [row for row in rows_of(m) if (row["target"], row["observed"]) != ("wide", "grey")] for m, method in enumerate(METHODS)}
    table = tables(Elements(page.page(**inputs(rows=rows))))[1]
    found = next(row for row in table if row[0]["text"] == "grey")
    assert (found[3]["text"], found[2]["text"]) == ("", "observed") and "data-row" not in found[3]["attributes"]


def test_key_numbers_are_means_over_targets(elements):
    table = texts(tables(elements)[0])
    assert table[1] == ["method", "1", "2", "1", "2", "all agree", "AUROC"]
    assert table[2:] == [["EB-MVAE", ".200", ".300", "510", "520", ".250", ".500"],
                         ["EB-MVAE annealed (ours)", ".300", ".400", "410", "420", ".500", ".750"],
                         ["PoE (MVAE)", ".400", ".500", "310", "320", ".750", "–"]]


def test_key_numbers_over_seeds_have_deviations_and_a_method_may_lack_a_seed():
    other = table_of(0.02)
    del other["poe"]
    table = texts(tables(Elements(page.page(**inputs(runs=[{"table": table_of()}, {"table": other}]))))[0])
    assert table[2] == ["EB-MVAE", ".210± .014", ".310± .014", "520± 14.1", "530± 14.1", ".260± .014", ".510± .014"]
    assert table[4] == ["PoE (MVAE)", ".400", ".500", "310", "320", ".750", "–"]


def test_the_best_of_a_column_is_bold(html):
    bold = re.findall(r"<b>([^<]*)</b></td>", html)
    assert bold == [".750", ".400", ".500", "310", "320", ".750"]  # AUROC is the annealed's, all others PoE's


def test_upper_bounds(elements):
    table = texts(tables(elements)[-1])
    assert table[0][1:] == ["unimodal VAE", "real images"]
    assert table[2] == ["a<b>", ".900", "40.0", "200", ".950", "30.0", "210"]
    assert table[4] == ["wide", ".920", "42.0", "202", ".970", "32.0", "212"]


def test_a_seed_that_is_left_out_of_everything_counts_for_nothing(html):
    assert page.page(**inputs(runs=[{"table": {}}, {"table": table_of()}])) == html


def test_without_labels_there_is_no_coherence_anywhere():
    rows = {method: [{**row, "coherence": None} for row in rows_of(m)] for m, method in enumerate(METHODS)}
    table = table_of()
    for method in METHODS:
        del table[method]["unconditional"]["all_agree"]
        for name, k in itertools.product(NAMES, (1, 2)):
            del table[method][name][f"given{k}"]["coherence"]
    for reference, name in itertools.product(REFERENCES, NAMES):
        del table[reference][name]["coherence"]
    del table["real"]["wide"]["diversity"]  # nor may there be two of a class
    found = Elements(page.page(**inputs(rows=rows, runs=[{"table": table}])))
    key, *maps, bounds = map(texts, tables(found))
    assert key[1] == ["method", "1", "2", "AUROC"] and key[2] == ["EB-MVAE", "510", "520", ".500"]
    assert maps[0][1] == ["nothing", "1000", "999", "998"]
    assert bounds[1] == ["target", *["Fréchet distance", "diversity"] * 2] and bounds[4] == ["wide", "42.0", "202", "32.0", "–"]


@pytest.mark.parametrize("value, text", [(0.0, ".000"), (0.8654, ".865"), (0.9996, "1.000"), (1.0, "1.000")])
def test_shares(value, text):
    assert page.share(value) == text


@pytest.mark.parametrize("value, text", [(0.0, "0.0"), (8.26, "8.3"), (99.94, "99.9"), (99.96, "100"), (1234.4, "1234")])
def test_amounts(value, text):
    assert page.amount(value) == text


# ---- the claims


def test_claims_say_their_verdict_in_words_too(elements):
    found = {e["attributes"]["class"]: e["text"] for e in elements.of("p") if e["attributes"].get("class", "").startswith("verdict")}
    assert found == {"verdict holds": "✓holds", "verdict fails": "✗fails0 of 2 seeds", "verdict within": "≈within the spread1 of 2 seeds"}
    assert "1 of 3 hold." in " ".join(e["text"] for e in elements.of("p"))


def test_every_verdict_has_its_mark():
    every = {claims.verdict({"holds": holds, "seeds": seeds}).strip("*") for holds in (True, False) for seeds in ([], [True, False])}
    assert every == set(page.MARK) and len(set(page.MARK.values())) == len(page.MARK)


def test_claims_name_methods_as_the_figures_do(html):
    assert "EB-MVAE&#x27;s Fréchet distance falls &amp; &lt;rises&gt;" in html
    assert "<span>EB-MVAE 1 → 2</span> <span>PoE 3</span>" in html


# ---- safe, and nothing fetched


def test_what_is_put_in_is_escaped_and_never_a_slot(html, elements):
    assert "alert(1)" in html and "<script>alert" not in html
    assert next(e["text"] for e in elements.of("dd")) == "digits <script>alert(1)</script> & {{data}}"
    assert "<b>.750" in html and "a<b>" not in html
    assert [e["attributes"]["alt"] for e in elements.of("img")] == ['its "alt" <1>', "two"]


def test_every_slot_is_filled():
    found = page.page(**inputs(facts={}))
    assert "{{" not in found and "}}" not in re.sub(r'"data">.*?</script>', "", found)


def test_nothing_is_fetched(html, elements):
    assert "http:" not in html and "https:" not in html
    for element in elements.all:
        for key in ("src", "href", "srcset", "action", "data", "poster"):
            assert element["attributes"].get(key, "#").startswith(("#", "data:"))
    style = " ".join(e["text"] for e in elements.of("style"))
    assert "url(" not in style and "@import" not in style and "@font-face" not in style


def test_the_browser_is_told_to_run_only_what_is_there(elements):
    policy = next(e["attributes"]["content"] for e in elements.of("meta") if e["attributes"].get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none'; img-src data:;") and "unsafe" not in policy
    for element in elements.of("style", "script"):
        digest = base64.b64encode(hashlib.sha256(element["text"].encode()).digest()).decode()
        assert (f"'sha256-{digest}'" in policy) == ("type" not in element["attributes"])  # data is no code
    assert len(elements.of("style")) == 1 and len(elements.of("script")) == 2


def test_no_code_in_attributes_and_none_made_from_text(elements):
    for element in elements.all:
        assert not [key for key in element["attributes"] if key.startswith("on") or key == "style"]
    script = elements.of("script")[-1]["text"]
    assert not re.search(r"\beval\b|new Function|innerHTML|insertAdjacentHTML|document\.write|fetch\(|XMLHttp|WebSocket|import\(", script)


def test_the_data_cannot_end_its_script(html, data):
    raw = re.search(r'id="data">(.*?)</script>', html, re.S)[1]
    assert "<" not in raw and data["names"] == NAMES
    assert json.loads(raw) == data


# ---- the pictures


def image_of(sheet):
    kind, encoded = sheet["src"].split(",")
    assert kind == "data:image/jpeg;base64"
    with Image.open(io.BytesIO(base64.b64decode(encoded))) as image:
        assert (image.format, image.mode) == ("JPEG", "RGB")
        return np.asarray(image).astype(int)


def check_sheet(sheet, images):
    """Every image lies where the page looks for it, untouched by its neighbours; grey in all three channels."""
    rows, columns, _, height, width = images.shape
    across, down = sheet["pitch"]
    picture = image_of(sheet)
    assert (sheet["width"], sheet["height"]) == (width, height)
    assert picture.shape == (rows * down, columns * across, 3) and across % 8 == down % 8 == 0
    for r, c in itertools.product(range(rows), range(columns)):
        found = picture[r * down : r * down + height, c * across : c * across + width]
        assert np.abs(found - images[r, c].transpose(1, 2, 0).astype(int)).max() <= 3


@pytest.mark.parametrize("t", range(3))
def test_samples_of_every_modality(data, t):
    given, name = inputs(), NAMES[t]
    for m, method in enumerate(METHODS):
        check_sheet(data["cells"][m][t], given["cells"][method][name])
    check_sheet(data["real"][t], given["real"][name][None])
    for w, method in enumerate(METHODS[:2]):
        check_sheet(data["ways"][w]["sheets"][t], given["ways"][method]["images"][name])


def test_samples_look_alike():
    """Not only flat ones: a smooth picture comes back within a few grey levels."""
    y, x = np.mgrid[:28, :28]
    images = np.broadcast_to((y * 4 + x * 5).astype(np.uint8), (1, 2, 3, 28, 28))
    check_sheet(page.sheet(images), images)


def test_the_script_knows_subsets_tuples_and_steps(data):
    assert data["subsets"] == [list(subset) for subset in SUBSETS]
    assert data["tuples"] == ["0", "<3>"] and data["metrics"] == ["coherence", "Fréchet distance"]
    assert data["methods"] == ["EB-MVAE", "EB-MVAE annealed (ours)", "PoE (MVAE)"]
    assert [(way["method"], way["observed"], way["steps"]) for way in data["ways"]] == [(0, NAMES[0], [0, 5, 40]), (1, NAMES[0], [0, 5, 40])]


def test_colours_are_those_of_the_figures(html):
    for i, key in enumerate([*METHODS, *REFERENCES]):
        assert f".of{i} {{ --of: {page.COLOUR[key]}; }}" in html


# ---- readable by all


def test_every_picture_has_its_text_and_size(elements):
    for image in elements.of("img"):
        assert image["attributes"]["alt"].strip()
        assert (image["attributes"]["width"], image["attributes"]["height"]) == ("30", "20")
        assert image["attributes"]["src"].startswith("data:image/png;base64,")


def test_outline(elements):
    levels = [int(e["tag"][1]) for e in elements.of("h1", "h2", "h3", "h4")]
    assert levels[0] == 1 and levels.count(1) == 1 and all(after <= before + 1 for before, after in zip(levels, levels[1:]))
    assert elements.of("html")[0]["attributes"]["lang"] == "en" and elements.of("title")[0]["text"]
    for tag in ("header", "main", "footer", "nav"):
        assert len(elements.of(tag)) == 1


def test_what_is_referred_to_is_there(elements):
    ids = [e["attributes"]["id"] for e in elements.all if "id" in e["attributes"]]
    assert len(ids) == len(set(ids))
    for element in elements.all:
        for key in ("aria-labelledby", "aria-describedby", "for"):
            assert set(element["attributes"].get(key, "").split()) <= set(ids)
    assert {e["attributes"]["href"][1:] for e in elements.of("a")} <= set(ids)
    script = elements.of("script")[-1]["text"]
    assert set(re.findall(r'\$\("([\w-]+)"\)', script)) <= set(ids)


def test_wide_tables_scroll_in_a_focusable_named_box(elements):
    boxes = [e["attributes"] for e in elements.all if e["attributes"].get("class", "").startswith("scroll")]
    assert len(boxes) == 2 + len(METHODS) + 2  # key numbers and bounds, the grids, the figures
    for box in boxes:
        assert box["tabindex"] == "0" and box["role"] == "region" and box["aria-label"]
    assert len({box["aria-label"] for box in boxes}) == len(boxes)
    for table in elements.of("table"):
        assert table["inside"][-1] == "div"


# ---- the committed one


def test_the_committed_page_is_small_and_tells_the_committed_numbers():
    file = ROOT / "reports/index.html"
    assert file.stat().st_size < 4 * 2**20
    table = json.loads((ROOT / "reports/table.json").read_text())
    found = Elements(file.read_text())
    assert table["dataset"] in [e["text"] for e in found.of("dd")]
    key, *_ = tables(found)
    steps = len(table["judges"]) - 1
    for method, row in zip(table["seeds"], key[2:], strict=True):
        numbers = [" ".join(cell["text"].split("±")[0].split()) for cell in row]
        for k in range(1, steps + 1):
            mean = lambda metric: sum(table[method][name][f"given{k}"][metric] for name in table["judges"]) / (steps + 1)
            assert abs(float(numbers[k]) - mean("coherence")) < 0.00051
            assert abs(float(numbers[steps + k]) - mean("frechet_polymnist")) < 0.51
