"""The report as one page that fetches nothing, reports/index.html: numbers and uint8 images in, HTML out.

page.html beside this file holds how it looks and what it does; each {{name}} in it is filled in here. All numbers are in tables:
JavaScript only makes one heat map of those of the grid, and shows the samples of its cells.
"""

import base64
import hashlib
import io
import json
import re
import statistics
from html import escape
from pathlib import Path

import numpy as np
from PIL import Image

from stages.lib import claims
from stages.lib.figures import COLOUR, LABEL

TEMPLATE = Path(__file__).with_name("page.html")
BLOCK = 8  # JPEG compresses squares of 8 x 8: sheets are laid out so that no square holds two images
encoded = lambda data: base64.b64encode(data).decode()  # bytes -> base64 text
MARK = {"holds": ("holds", "✓"), "fails": ("fails", "✗"), "within the spread": ("within", "≈")}  # class and sign of a verdict


def page(facts, names, methods, references, distance, runs, verdicts, figures, rows, cells, real, classes, ways):
    """The whole page as text; the same inputs give the same text.

    facts: {term: text} for the head; names: of the modalities; methods, references: keys of LABEL; runs: [{"table"}], one a
    seed; verdicts: claims.check's; figures: [(title, alternative text, PNG bytes)]; rows: {method: the rows of its results};
    cells: {method: {target: uint8 (row, tuple, C, H, W)}}, in the order of that target's rows; real: {name: uint8 (tuple, C,
    H, W)}, the test images of those tuples; classes: their digits; ways: {method: {"observed": name, "steps": [int],
    "images": {name: uint8 (step, tuple, C, H, W)}}}.
    """
    metrics = ["coherence", short(distance)]
    found = dict.fromkeys((row["n_observed"], row["observed"]) for method in methods for row in rows[method])
    subsets = [observed.split("+") if size else [] for size, observed in sorted(found, key=lambda each: each[0])]
    start = next((subset for subset in subsets if len(subset) == min(2, len(names) - 1)), subsets[0])  # the cell shown at first
    data = {"names": names, "classes": [str(c) for c in classes], "methods": [LABEL[m] for m in methods], "metrics": metrics,
            "subsets": subsets, "first": [subsets.index(start), next(i for i, name in enumerate(names) if name not in start)],
            "real": [sheet(real[name][None]) for name in names],
            "cells": [[sheet(cells[method][name]) for name in names] for method in methods],
            "ways": [{"method": methods.index(method), "observed": way["observed"], "steps": way["steps"],
                      "sheets": [sheet(way["images"][name]) for name in names]} for method, way in ways.items()]}
    held = sum(claims.verdict(v) == "holds" for v in verdicts)
    parts = {
        "title": "EB-MVAE: claims, figures and samples",
        "facts": "".join(f"<dt>{escape(term)}</dt><dd>{escape(text)}</dd>" for term, text in facts.items()),
        "distance": escape(metrics[1]),
        "numbers": headline(runs, methods, names, distance),
        "count": f"{held} of {len(verdicts)} hold. Every verdict is computed from the numbers below it"
                 + (", means over seeds; what holds in some seeds only is within their spread." if len(runs) > 1 else "."),
        "claims": "".join(claim(v, (*methods, distance)) for v in verdicts),
        "figures": "".join(figure(i, *each) for i, each in enumerate(figures, 1)),
        "seed": str(rows[methods[0]][0]["seed"]),
        "maps": "".join(grid(i, method, rows[method], names, subsets, distance) for i, method in enumerate(methods)),
        "bounds": bounds(runs, references, names, distance, len(methods)),
        # Inside a script "<" could end it or open a comment; JSON can write it otherwise.
        "data": json.dumps(data, sort_keys=True).replace("<", "\\u003c"),
    }
    colours = "\n".join(f".of{i} {{ --of: {COLOUR[key]}; }}" for i, key in enumerate([*methods, *references]))
    template = TEMPLATE.read_text(encoding="utf-8").replace("{{colours}}", colours)
    # The browser is told to run only this code and style, and to load nothing.
    style, script = (" ".join(f"'sha256-{encoded(hashlib.sha256(text.encode()).digest())}'" for text in re.findall(rf"<{tag}>(.*?)</{tag}>", template, re.S)) for tag in ("style", "script"))
    parts["policy"] = f"default-src 'none'; img-src data:; style-src {style}; script-src {script}; base-uri 'none'; form-action 'none'"
    return re.sub(r"\{\{(\w+)\}\}", lambda slot: parts[slot[1]], template)  # in one pass: what is put in is not looked at again


def sheet(images):
    """Images uint8 (rows, columns, C, H, W) as one JPEG: {"src": data URI, "width": W, "height": H, "pitch": [across, down]}."""
    rows, columns, _, height, width = images.shape
    padded = np.pad(images, [(0, 0)] * 3 + [(0, -height % BLOCK), (0, -width % BLOCK)], "edge")
    down, across = padded.shape[3:]
    whole = np.broadcast_to(padded, (rows, columns, 3, down, across))  # grey (C = 1) broadcasts to three
    whole = whole.transpose(0, 3, 1, 4, 2).reshape(rows * down, columns * across, 3)
    buffer = io.BytesIO()
    Image.fromarray(whole).save(buffer, "JPEG", quality=90, subsampling=0, optimize=True)
    return {"src": f"data:image/jpeg;base64,{encoded(buffer.getvalue())}", "width": width, "height": height, "pitch": [across, down]}


def share(value):
    """A number from 0 to 1 as text: .865"""
    return f"{value:.3f}".removeprefix("0")


def amount(value):
    """A distance as text: 203, 8.3"""
    return f"{value:.{1 if value < 99.95 else 0}f}"


def short(key):
    """The label of a method or metric without what stands in brackets."""
    return LABEL[key].split(" (")[0]


def label(i, key):
    """The label of method or reference i, after a dot of its colour."""
    return f'<span class="swatch of{i}"></span>{escape(LABEL[key])}'


def scrolled(name, content, kind=""):
    """A box that scrolls by itself where its content is wider than the screen; focusable, so that keys scroll it."""
    return f'<div class="scroll {kind}" role="region" tabindex="0" aria-label="{escape(name)}">{content}</div>'


def over_seeds(values, text):
    """A number of each seed -> its mean as text, and as HTML with the standard deviation, where there are two or more."""
    mean = text(statistics.fmean(values))
    return mean, mean if len(values) < 2 else f"{mean}<small>± {text(statistics.stdev(values))}</small>"


def table(name, caption, corner, groups, rows):
    """A table in its box, as HTML of HTML: groups of columns [(title, [head])], rows [(head, [cell])]."""
    starts = {sum(len(heads) for _, heads in groups[:g]) for g in range(len(groups))}
    gap = lambda c: ' class="gap"' if c in starts else ""
    titles = "".join(f'<th scope="colgroup" colspan="{len(heads)}" class="gap">{title}</th>' for title, heads in groups)
    heads = "".join(f'<th scope="col"{gap(c)}>{head}</th>' for c, head in enumerate(head for _, heads in groups for head in heads))
    body = "".join(f'<tr><th scope="row">{head}</th>' + "".join(f"<td{gap(c)}>{cell}</td>" for c, cell in enumerate(cells)) + "</tr>"
                   for head, cells in rows)
    return scrolled(name, f'<table class="ruled"><caption>{caption}</caption><thead><tr><td></td>{titles}</tr>'
                          f'<tr><th scope="col">{corner}</th>{heads}</tr></thead><tbody>{body}</tbody></table>')


def headline(runs, methods, names, distance):
    """The table of key numbers: a row a method; means over targets given 1 to M - 1, agreement, AUROC."""
    sizes = range(1, len(names))
    columns = [(best, text, lambda part, metric=metric, k=k: statistics.fmean(part[name][f"given{k}"][metric] for name in names))
               for metric, best, text in (("coherence", max, share), (distance, min, amount)) for k in sizes]
    columns += [(max, share, lambda part: part["unconditional"]["all_agree"]), (max, share, lambda part: part.get("energy_auroc"))]
    cells = {method: [] for method in methods}
    for best, text, of in columns:
        values = {m: [of(run["table"][m]) for run in runs if m in run["table"]] for m in methods}
        found = {m: over_seeds(part, text) for m, part in values.items() if part and None not in part}
        top = best((mean for mean, _ in found.values()), key=float, default=None)
        for method in methods:
            mean, cell = found.get(method, ("", "–"))
            cells[method].append(f"<b>{cell}</b>" if mean == top else cell)
    below = "; below a number, its standard deviation over seeds" if len(runs) > 1 else ""
    return table("Key numbers", f"All agree: how often all classifiers read one digit in a tuple made from nothing. AUROC: of the energy, "
                 f"matching against mismatched tuples. Bold is best{below}.", "method",
                 [("coherence, given", sizes), (f"{escape(short(distance))}, given", sizes), ("unconditional", ["all agree", "AUROC"])],
                 [(label(i, method), cells[method]) for i, method in enumerate(methods)])


def bounds(runs, references, names, distance, first):
    """The table of upper bounds: a row a target; coherence, distance and diversity of each reference."""
    metrics = {"coherence": share, distance: amount, "diversity": amount}
    value = lambda key, name, metric: over_seeds([r["table"][key][name][metric] for r in runs if key in r["table"]], metrics[metric])[1]
    heads = ["coherence", escape(short(distance)), "diversity"]
    return table("Upper bounds", "Diversity: the total variance of the features within a digit.", "target",
                 [(label(first + i, key), heads) for i, key in enumerate(references)],
                 [(escape(name), [value(key, name, metric) for key in references for metric in metrics]) for name in names])


def claim(judged, keys):
    """One claim as a list item: the verdict as word, sign and colour, the claim, and what was measured."""
    verdict = claims.verdict(judged).strip("*")
    kind, mark = MARK[verdict]
    readable = lambda text: escape(re.sub(rf"\b({'|'.join(keys)})\b", lambda found: short(found[1]), text))
    seeds = f"<small>{sum(judged['seeds'])} of {len(judged['seeds'])} seeds</small>" if len(judged["seeds"]) > 1 else ""
    measured = " ".join(f"<span>{readable(part)}</span>" for part in judged["measured"].split("; "))
    return (f'<li><p class="verdict {kind}"><i aria-hidden="true">{mark}</i>{verdict}{seeds}</p>'
            f'<p>{readable(judged["claim"])}</p><p class="measured">{measured}</p></li>')


def figure(i, title, alternative, png):
    with Image.open(io.BytesIO(png)) as image:
        width, height = image.size
    picture = f'<img src="data:image/png;base64,{encoded(png)}" width="{width}" height="{height}" alt="{escape(alternative)}">'
    return (f'<figure class="plate">{scrolled(f"Figure {i}", picture)}'
            f"<figcaption><b>Figure {i}.</b> {escape(title)}</figcaption></figure>")


def grid(i, method, rows, names, subsets, distance):
    """The table of method i: coherence and distance of each target given each subset; empty where the target is observed.

    `data-row` says which row of that target's sheet shows the samples of a cell.
    """
    at = {(name, row["observed"]): (k, row) for name in names for k, row in enumerate(r for r in rows if r["target"] == name)}

    def cell(name, subset):
        if name in subset:
            return '<td class="void"><span class="unseen">observed</span></td>'
        if (name, key := "+".join(subset) or "none") not in at:
            return "<td></td>"
        k, row = at[name, key]
        coherence = "–" if row["coherence"] is None else share(row["coherence"])
        return f'<td data-row="{k}"><span>{coherence}</span> / <span>{amount(row[distance])}</span></td>'

    body = ""
    for before, subset in zip([[], *subsets], subsets):
        body += (f'<tr{" class=size" * (len(subset) > len(before))}><th scope="row">{escape(" ".join(subset)) or "nothing"}</th>'
                 f'{"".join(cell(name, subset) for name in names)}</tr>')
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in names)
    return scrolled(f"{LABEL[method]}, grid", f'<table><caption>{label(i, method)}<span class="both">: coherence / '
                    f'{escape(short(distance))}</span></caption><thead><tr><th scope="col">observed</th>{head}</tr></thead>'
                    f"<tbody>{body}</tbody></table>", "map")
