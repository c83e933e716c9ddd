"""The page: which number and image stands where. What it does in a browser: tests/browser."""

import base64
import dataclasses
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

from ebmvae.methods import METHODS as ALL_METHODS
from ebmvae.methods import REFERENCES
from ebmvae.reporting import formats, page

ROOT = Path(__file__).parents[2]
SHAPE = {"a<b>": (3, 10, 12), "grey": (1, 8, 8), "wide": (3, 9, 20)}
NAMES = list(SHAPE)
METHODS = ("eb_mvae", "eb_mvae_annealed", "poe")
DISTANCE = "frechet_polymnist"
SUBSETS = [subset for size in range(3) for subset in itertools.combinations(NAMES, size)]
TUPLES, STEPS = 2, [0, 5, 40]
VOID = {"br", "img", "input", "link", "meta"}


def cell_of(m, target, subset):
    """Coherence and distance of a cell, different from those of every other cell."""
    k, t = SUBSETS.index(subset), NAMES.index(target)
    coherence = 0.1 + 0.3 * m + 0.03 * k + 0.005 * t if subset else None
    return {"coherence": coherence, DISTANCE: 1000.0 - 300 * m - 10 * k - t}


def text_of(m, target, subset):
    cell = cell_of(m, target, subset)
    coherence = f"{cell['coherence']:.3f}"[1:] if subset else "–"
    return f"{coherence} / {cell[DISTANCE]:.0f}"


def rows_of(m):
    return [
        {
            **{"target": target, "observed": "+".join(subset) or "none", "n_observed": len(subset)},
            **{"seed": 7, **cell_of(m, target, subset)},
        }
        for subset in SUBSETS
        for target in NAMES
        if target not in subset
    ]


def table_of(shift=0.0):
    """The table of a seed; `shift` makes another seed of it."""
    table = {}
    for m, method in enumerate(METHODS):
        cells = [(0.1 * (m + 1 + k) + shift, 500 - 100 * m + 10 * k + 1000 * shift) for k in (1, 2)]
        for name in NAMES:
            given = {
                f"given{k}": {"coherence": c, DISTANCE: d} for k, (c, d) in enumerate(cells, 1)
            }
            table.setdefault(method, {})[name] = given
        table[method]["unconditional"] = {"all_agree": 0.25 + 0.25 * m + shift}
        if m < 2:
            table[method]["energy_auroc"] = 0.5 + 0.25 * m + shift
    for r, reference in enumerate(REFERENCES):
        for i, name in enumerate(NAMES):
            numbers = {"coherence": 0.9 + 0.05 * r + 0.01 * i, DISTANCE: 40.0 - 10 * r + i}
            table.setdefault(reference, {})[name] = {**numbers, "diversity": 200.0 + 10 * r + i}
    return table


def flat(name, rows, columns, start):
    """Images uint8 (rows, columns, C, H, W), each of one colour, unlike those of its neighbours."""
    image = np.arange(rows * columns).reshape(rows, columns, 1, 1, 1)
    colour = (start + 97 * image + 61 * np.arange(SHAPE[name][0]).reshape(-1, 1, 1)) % 256
    return np.broadcast_to(colour, (rows, columns, *SHAPE[name])).astype(np.uint8)


def content(**changes):
    png = io.BytesIO()
    Image.new("RGB", (30, 20), "red").save(png, "PNG")
    claim = "eb_mvae's frechet_polymnist falls & <rises>"
    n_rows = {name: sum(name not in subset for subset in SUBSETS) for name in NAMES}
    images = {name: flat(name, len(STEPS), TUPLES, 9) for name in NAMES}
    whole = page.PageContent(
        facts={"Data": "digits <script>alert(1)</script> & {{ data }}", "Code": "abc"},
        names=NAMES,
        distance=DISTANCE,
        tables=[table_of()],
        verdicts=[
            {"claim": claim, "holds": True, "measured": "eb_mvae 1 → 2; poe 3", "seeds": []},
            {"claim": "two", "holds": False, "measured": "x", "seeds": [False, False]},
            {"claim": "three", "holds": True, "measured": "x", "seeds": [True, False]},
        ],
        figures=[("first", 'an "alt" <1>', png.getvalue()), ("second", "two", png.getvalue())],
        rows={method: rows_of(m) for m, method in enumerate(METHODS)},
        cells={
            method: {name: flat(name, n_rows[name], TUPLES, 50 * m) for name in NAMES}
            for m, method in enumerate(METHODS)
        },
        real={name: flat(name, 1, TUPLES, 7)[0] for name in NAMES},
        tuples=["0", "<3>"],
        trajectories={
            method: {"observed": NAMES[0], "steps": STEPS, "images": images}
            for method in METHODS[:2]
        },
    )
    return dataclasses.replace(whole, **changes)


class Elements(HTMLParser):
    """Every element as {"tag", "attributes", "text", "parent"}; fails where tags don't match."""

    def __init__(self, text):
        super().__init__()
        self.all, self.open = [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        assert len(dict(attributes)) == len(attributes)
        parent = self.open[-1] if self.open else None
        self.all.append({"tag": tag, "attributes": dict(attributes), "text": "", "parent": parent})
        if tag not in VOID:
            self.open.append(self.all[-1])

    def handle_endtag(self, tag):
        assert self.open.pop()["tag"] == tag

    def handle_data(self, data):
        for element in self.open:
            element["text"] += data

    def get(self, *tags):
        return [element for element in self.all if element["tag"] in tags]

    def tables(self):
        """Every table as rows of cells, in document order."""
        tables = []
        for element in self.get("table", "tr", "th", "td"):
            if element["tag"] == "table":
                tables.append([])
            elif element["tag"] == "tr":
                tables[-1].append([])
            else:
                tables[-1][-1].append(element)
        return tables


def texts(table):
    return [[" ".join(cell["text"].split()) for cell in row] for row in table]


def rendered(**changes):
    return Elements(page.render(content(**changes)))


@pytest.fixture(scope="module")
def html():
    return page.render(content())


@pytest.fixture(scope="module")
def elements(html):
    return Elements(html)


@pytest.fixture(scope="module")
def data(elements):
    scripts = elements.get("script")
    return json.loads(next(e["text"] for e in scripts if e["attributes"].get("id") == "data"))


def test_the_same_content_gives_the_same_text(html):
    whole = content()
    backwards = {
        key: dict(reversed(getattr(whole, key).items()))
        for key in ("cells", "real", "rows", "trajectories")
    }
    assert page.render(content(**backwards)) == html


# ---- the numbers


def test_every_cell_has_its_numbers_and_names_its_row_of_the_samples(elements):
    """The row is that of the target's rows in results.json, the order of its samples."""
    grids = elements.tables()[1:-1]
    assert len(grids) == len(METHODS)
    for m, grid in enumerate(grids):
        assert texts(grid)[0] == ["observed", *NAMES]
        next_row = dict.fromkeys(NAMES, 0)
        for subset, row in zip(SUBSETS, grid[1:], strict=True):
            assert row[0]["text"] == (" ".join(subset) or "nothing")
            for target, cell in zip(NAMES, row[1:], strict=True):
                if target in subset:
                    assert cell["text"] == "observed" and "data-row" not in cell["attributes"]
                    continue
                assert cell["text"] == text_of(m, target, subset)
                assert cell["attributes"]["data-row"] == str(next_row[target])
                next_row[target] += 1


def test_rows_in_another_order_keep_their_numbers_and_samples():
    rows = {method: rows_of(m)[::-1] for m, method in enumerate(METHODS)}
    grid = rendered(rows=rows).tables()[1]
    cell = next(row for row in grid if row[0]["text"] == "grey wide")[1]
    assert cell["text"] == text_of(0, "a<b>", ("grey", "wide"))
    assert cell["attributes"]["data-row"] == "0"


def test_a_cell_that_was_not_drawn_is_blank_and_not_called_observed():
    rows = {
        method: [row for row in rows_of(m) if (row["target"], row["observed"]) != ("wide", "grey")]
        for m, method in enumerate(METHODS)
    }
    row = next(row for row in rendered(rows=rows).tables()[1] if row[0]["text"] == "grey")
    assert (row[3]["text"], row[2]["text"]) == ("", "observed")
    assert "data-row" not in row[3]["attributes"]


def test_key_numbers_are_means_over_targets_and_the_best_are_bold(html, elements):
    table = texts(elements.tables()[0])
    assert table[1] == ["method", "1", "2", "1", "2", "all agree", "AUROC"]
    assert table[2:] == [
        ["EB-MVAE", ".200", ".300", "510", "520", ".250", ".500"],
        ["EB-MVAE annealed (ours)", ".300", ".400", "410", "420", ".500", ".750"],
        ["PoE (MVAE)", ".400", ".500", "310", "320", ".750", "–"],
    ]
    bold = re.findall(r"<b>([^<]*)</b></td>", html)
    assert bold == [".750", ".400", ".500", "310", "320", ".750"]  # the annealed's, then PoE's


def test_over_seeds_there_are_deviations_and_a_method_may_lack_a_seed():
    other = table_of(0.02)
    del other["poe"]
    table = texts(rendered(tables=[table_of(), other]).tables()[0])
    numbers = [".210± .014", ".310± .014", "520± 14.1", "530± 14.1", ".260± .014", ".510± .014"]
    assert table[2] == ["EB-MVAE", *numbers]
    assert table[4] == ["PoE (MVAE)", ".400", ".500", "310", "320", ".750", "–"]


def test_a_seed_that_is_left_out_of_everything_counts_for_nothing(html):
    assert page.render(content(tables=[{}, table_of()])) == html


def test_upper_bounds(elements):
    table = texts(elements.tables()[-1])
    assert table[0][1:] == ["unimodal VAE", "real images"]
    assert table[2] == ["a<b>", ".900", "40.0", "200", ".950", "30.0", "210"]
    assert table[4] == ["wide", ".920", "42.0", "202", ".970", "32.0", "212"]


def test_without_labels_there_is_no_coherence_anywhere():
    rows = {
        method: [{**row, "coherence": None} for row in rows_of(m)]
        for m, method in enumerate(METHODS)
    }
    table = table_of()
    for method, name in itertools.product(METHODS, NAMES):
        table[method]["unconditional"] = {}
        for k in (1, 2):
            del table[method][name][f"given{k}"]["coherence"]
    for reference, name in itertools.product(REFERENCES, NAMES):
        del table[reference][name]["coherence"]
    del table["real"]["wide"]["diversity"]  # there may be fewer than two images of a class
    key_numbers, *grids, bounds = map(texts, rendered(rows=rows, tables=[table]).tables())
    assert key_numbers[1] == ["method", "1", "2", "AUROC"]
    assert key_numbers[2] == ["EB-MVAE", "510", "520", ".500"]
    assert grids[0][1] == ["nothing", "1000", "999", "998"]
    assert bounds[1] == ["target", *["Fréchet distance", "diversity"] * 2]
    assert bounds[4] == ["wide", "42.0", "202", "32.0", "–"]


def test_numbers_as_text():
    assert [*map(formats.share, (0.0, 0.8654, 0.9996, 1))] == [".000", ".865", "1.000", "1.000"]
    assert [*map(formats.amount, (0.0, 8.26, 99.94, 99.96, 1234.4))] == (
        ["0.0", "8.3", "99.9", "100", "1234"]
    )


def test_claims_say_their_verdict_in_words_and_name_methods_by_their_labels(elements):
    paragraphs = {}
    for element in elements.get("p", "span"):
        parent = element["parent"]["attributes"].get("class")
        key = element["attributes"].get("class") or ("part" if parent == "measured" else None)
        paragraphs.setdefault(key, []).append(element["text"])
    assert paragraphs["verdict holds"] == ["✓holds"]
    assert paragraphs["verdict fails"] == ["✗fails0 of 2 seeds"]
    assert paragraphs["verdict within"] == ["≈within the spread1 of 2 seeds"]
    assert "EB-MVAE's Fréchet distance falls & <rises>" in paragraphs[None]
    assert paragraphs["part"] == ["EB-MVAE 1 → 2", "PoE 3", "x", "x"]
    assert any(text.startswith("1 of 3 hold.") for text in paragraphs[None])


# ---- safe, and nothing fetched


def test_what_is_put_in_is_escaped(html, elements, data):
    fact = elements.get("dd")[0]["text"]
    assert fact == "digits <script>alert(1)</script> & {{ data }}"
    assert "<script>alert" not in html and "a<b>" not in html
    assert [e["attributes"]["alt"] for e in elements.get("img")] == ['an "alt" <1>', "two"]
    raw = re.search(r'id="data">(.*?)</script>', html, re.S)[1]
    assert "<" not in raw and data["names"] == NAMES  # nor can data end their script


def test_nothing_is_fetched(html, elements):
    assert "http:" not in html and "https:" not in html
    for element, key in itertools.product(
        elements.all, ("src", "href", "srcset", "action", "data")
    ):
        assert element["attributes"].get(key, "#").startswith(("#", "data:"))
    assert not re.search(r"url\(|@import|@font-face", elements.get("style")[0]["text"])


def test_the_browser_is_told_to_run_only_what_is_there(elements):
    policy = next(
        e["attributes"]["content"]
        for e in elements.get("meta")
        if e["attributes"].get("http-equiv") == "Content-Security-Policy"
    )
    assert policy.startswith("default-src 'none'; img-src data:;") and "unsafe" not in policy
    for element in elements.get("style", "script"):
        digest = base64.b64encode(hashlib.sha256(element["text"].encode()).digest()).decode()
        is_code = "type" not in element["attributes"]  # data are none
        assert (f"'sha256-{digest}'" in policy) == is_code
    assert len(elements.get("style")) == 1 and len(elements.get("script")) == 2


def test_no_code_stands_in_attributes_and_none_is_made_from_text(elements):
    keys = {key for element in elements.all for key in element["attributes"]}
    assert not [key for key in keys if key.startswith("on") or key == "style"]
    banned = r"\beval\b|new Function|innerHTML|insertAdjacentHTML|document\.write|fetch\("
    banned += r"|XMLHttp|WebSocket|import\("
    assert not re.search(banned, elements.get("script")[-1]["text"])


# ---- the pictures


def check_sheet(sheet, images):
    """Every image lies where the page looks for it, untouched by its neighbours; grey as colour."""
    kind, encoded = sheet["src"].split(",")
    assert kind == "data:image/jpeg;base64"
    with Image.open(io.BytesIO(base64.b64decode(encoded))) as image:
        assert (image.format, image.mode) == ("JPEG", "RGB")
        picture = np.asarray(image).astype(int)
    rows, columns, _, height, width = images.shape
    across, down = sheet["pitch"]
    assert (sheet["width"], sheet["height"]) == (width, height)
    assert picture.shape == (rows * down, columns * across, 3) and across % 8 == down % 8 == 0
    for r, c in itertools.product(range(rows), range(columns)):
        part = picture[r * down : r * down + height, c * across : c * across + width]
        assert np.abs(part - images[r, c].transpose(1, 2, 0).astype(int)).max() <= 3


def test_the_sheets_show_the_samples_of_every_cell(data):
    whole = content()
    for t, name in enumerate(NAMES):
        for m, method in enumerate(METHODS):
            check_sheet(data["cells"][m][t], whole.cells[method][name])
        check_sheet(data["real"][t], whole.real[name][None])
        for trajectory, method in zip(data["trajectories"], METHODS, strict=False):
            images = whole.trajectories[method]["images"]
            check_sheet(trajectory["sheets"][t], images[name])


def test_the_script_knows_what_the_tables_show(html, data):
    assert data["subsets"] == [list(subset) for subset in SUBSETS] and data["names"] == NAMES
    assert data["tuples"] == ["0", "<3>"] and data["metrics"] == ["coherence", "Fréchet distance"]
    assert data["methods"] == ["EB-MVAE", "EB-MVAE annealed (ours)", "PoE (MVAE)"]
    trajectories = [(t["method"], t["observed"], t["steps"]) for t in data["trajectories"]]
    assert trajectories == [(0, NAMES[0], STEPS), (1, NAMES[0], STEPS)]
    entries = [*(ALL_METHODS[method] for method in METHODS), *REFERENCES.values()]
    for i, entry in enumerate(entries):
        assert f".swatch-{i} {{ --colour: {entry.colour}; }}" in html


# ---- readable by all


def test_headings_landmarks_and_references(elements):
    levels = [int(e["tag"][1]) for e in elements.get("h1", "h2", "h3", "h4")]
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels))
    assert elements.get("html")[0]["attributes"]["lang"] == "en"
    assert [len(elements.get(tag)) for tag in ("header", "main", "footer", "nav")] == [1] * 4
    ids = [e["attributes"]["id"] for e in elements.all if "id" in e["attributes"]]
    assert len(ids) == len(set(ids))
    for element, key in itertools.product(elements.all, ("aria-labelledby", "for")):
        assert set(element["attributes"].get(key, "").split()) <= set(ids)
    assert {e["attributes"]["href"][1:] for e in elements.get("a")} <= set(ids)
    script = elements.get("script")[-1]["text"]
    assert set(re.findall(r'\$\("([\w-]+)"\)', script)) <= set(ids)


def test_tables_and_figures_scroll_in_focusable_named_boxes(elements):
    wide = elements.get("table", "img")
    assert len(wide) == 2 + len(METHODS) + 2  # key numbers and bounds, the grids, the figures
    boxes = [element["parent"]["attributes"] for element in wide]
    assert all(box["role"] == "region" and box["tabindex"] == "0" for box in boxes)
    assert len({box["aria-label"] for box in boxes}) == len(boxes)
    for image in elements.get("img"):
        assert (image["attributes"]["width"], image["attributes"]["height"]) == ("30", "20")
        assert image["attributes"]["src"].startswith("data:image/png;base64,")


# ---- the committed one
