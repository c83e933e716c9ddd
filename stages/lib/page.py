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
MARK = {"holds": ("holds", "✓"), "fails": ("fails", "✗"), "within the spread": ("within", "≈")}  # class and sign of a verdict


def page(facts, names, methods, references, distance, runs, verdicts, figures, rows, cells, real, tuples, ways):
    """The whole page as text; the same inputs give the same text.

    facts: {term: text} for the head; names: of the modalities; methods, references: keys of LABEL; runs: [{"table"}], one a
    seed; verdicts: claims.check's; figures: [(title, alternative text, PNG bytes)]; rows: {method: the rows of its results};
    cells: {method: {target: uint8 (row, tuple, C, H, W)}}, in the order of that target's rows; real: {name: uint8 (tuple, C,
    H, W)}, the test images of those tuples; tuples: what to call them; ways: {method: {"observed": name, "steps": [int],
    "images": {name: uint8 (step, tuple, C, H, W)}}}. Data without labels have no coherence anywhere.
    """
    runs = [run for run in runs if run["table"]]  # a seed may be left out of everything
    forms = {metric: form for metric, form in (("coherence", share), (distance, amount))
             if any(row[metric] is not None for method in methods for row in rows[method])}
    found = dict.fromkeys((row["n_observed"], row["observed"]) for method in methods for row in rows[method])
    subsets = [observed.split("+") if size else [] for size, observed in sorted(found, key=lambda each: each[0])]
    data = {"names": names, "tuples": tuples, "methods": [LABEL[m] for m in methods], "metrics": [short(m) for m in forms],
            "subsets": subsets, "real": [sheet(real[name][None]) for name in names],
            "cells": [[sheet(cells[method][name]) for name in names] for method in methods],
            "ways": [{"method": methods.index(method), "observed": way["observed"], "steps": way["steps"],
                      "sheets": [sheet(way["images"][name]) for name in names]} for method, way in ways.items()]}
    parts = {
        "title": "EB-MVAE: claims, figures and samples",
        "facts": "".join(f"<dt>{escape(term)}</dt><dd>{escape(text)}</dd>" for term, text in facts.items()),
        "distance": escape(short(distance)),
        "numbers": headline(runs, methods, names, forms),
        "count": f"{sum(claims.verdict(v) == 'holds' for v in verdicts)} of {len(verdicts)} hold. Every verdict is computed from its "
                 + ("numbers." if len(runs) < 2 else "numbers, means over seeds; what holds in some seeds only is within their spread."),
        "claims": "".join(claim(v, (*methods, distance)) for v in verdicts),
        "figures": "".join(figure(i, *each) for i, each in enumerate(figures, 1)),
        "seed": str(rows[methods[0]][0]["seed"]),
        "maps": "".join(grid(i, method, rows[method], names, subsets, forms) for i, method in enumerate(methods)),
        "bounds": bounds(runs, references, names, forms, len(methods)),
        # Inside a script "<" could end it or open a comment; JSON can write it otherwise.
        "data": json.dumps(data, sort_keys=True).replace("<", "\\u003c"),
    }
    colours = "\n".join(f".of{i} {{ --of: {COLOUR[key]}; }}" for i, key in enumerate([*methods, *references]))
    template = TEMPLATE.read_text(encoding="utf-8").replace("{{colours}}", colours)
    # The browser is told to run only this code and style, and to load nothing.
    style, script = (encoded(hashlib.sha256(re.search(rf"<{tag}>(.*?)</{tag}>", template, re.S)[1].encode()).digest())
                     for tag in ("style", "script"))
    parts["policy"] = (f"default-src 'none'; img-src data:; style-src 'sha256-{style}'; script-src 'sha256-{script}'; "
                       "base-uri 'none'; form-action 'none'")
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


def encoded(data):
    return base64.b64encode(data).decode()


def share(value):
    """A number from 0 to 1 as text: .865"""
    return f"{value:.3f}".removeprefix("0")


def amount(value):
    """A distance as text: 203, 8.3"""
    return f"{value:.{1 if value < 99.95 else 0}f}"


def short(key):
    """The label of a method or metric without what stands in brackets."""
    return LABEL.get(key, key).split(" (")[0]


def label(i, key):
    """The label of method or reference i, after a dot of its colour."""
    return f'<span class="swatch of{i}"></span>{escape(LABEL[key])}'


def scrolled(name, content, kind=""):
    """A box that scrolls by itself where its content is wider than the screen; focusable, so that keys scroll it."""
    return f'<div class="scroll {kind}" role="region" tabindex="0" aria-label="{escape(name)}">{content}</div>'


def over_seeds(values, form):
    """A number of each seed -> its mean as text, and as HTML with the standard deviation, where there are two or more."""
    if not values or None in values:
        return "", "–"
    mean = form(statistics.fmean(values))
    return mean, mean if len(values) < 2 else f"{mean}<small>± {form(statistics.stdev(values))}</small>"


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


def headline(runs, methods, names, forms):
    """The table of key numbers: a row a method; means over targets given 1 to M - 1, agreement, AUROC."""
    sizes = range(1, len(names))
    columns = [(form, lambda part, metric=metric, k=k: statistics.fmean(part[name][f"given{k}"][metric] for name in names))
               for metric, form in forms.items() for k in sizes]
    agree = [(share, lambda part: part["unconditional"].get("all_agree"))] * ("coherence" in forms)  # both need labels
    columns += [*agree, (share, lambda part: part.get("energy_auroc"))]
    cells = {method: [] for method in methods}
    for form, of in columns:
        found = [over_seeds([of(run["table"][m]) for run in runs if m in run["table"]], form) for m in methods]
        best = (max if form is share else min)((mean for mean, _ in found if mean), key=float, default=None)
        for method, (mean, cell) in zip(methods, found):
            cells[method].append(f"<b>{cell}</b>" if mean == best else cell)
    below = "; below a number, its standard deviation over seeds" if len(runs) > 1 else ""
    told = "All agree: how often all classifiers read the same class in a tuple made from nothing. " if agree else ""
    return table("Key numbers", f"{told}AUROC: of the energy, matching against mismatched tuples. Bold is best{below}.", "method",
                 [*((f"{escape(short(m))}, given", sizes) for m in forms), ("unconditional", ["all agree"] * len(agree) + ["AUROC"])],
                 [(label(i, method), cells[method]) for i, method in enumerate(methods)])


def bounds(runs, references, names, forms, first):
    """The table of upper bounds: a row a target; coherence, distance and diversity of each reference."""
    forms = {**forms, "diversity": amount}
    cell = lambda key, name, metric: over_seeds([r["table"][key][name].get(metric) for r in runs if key in r["table"]], forms[metric])[1]
    heads = [escape(short(metric)) for metric in forms]
    return table("Upper bounds", "Diversity: the total variance of the features within a class.", "target",
                 [(label(first + i, key), heads) for i, key in enumerate(references)],
                 [(escape(name), [cell(key, name, metric) for key in references for metric in forms]) for name in names])


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
    width, height = Image.open(io.BytesIO(png)).size
    picture = f'<img src="data:image/png;base64,{encoded(png)}" width="{width}" height="{height}" alt="{escape(alternative)}">'
    return (f'<figure class="plate">{scrolled(f"Figure {i}", picture)}'
            f"<figcaption><b>Figure {i}.</b> {escape(title)}</figcaption></figure>")


def grid(i, method, rows, names, subsets, forms):
    """The table of method i: each target given each subset; `data-row` is the row of the target's sheet that shows the samples."""
    at = {(name, row["observed"]): (k, row) for name in names for k, row in enumerate(r for r in rows if r["target"] == name)}

    def cell(name, subset):
        if name in subset:
            return '<td class="void"><span class="unseen">observed</span></td>'
        if (name, key := "+".join(subset) or "none") not in at:
            return "<td></td>"
        k, row = at[name, key]
        numbers = ["–" if row[metric] is None else form(row[metric]) for metric, form in forms.items()]
        return f'<td data-row="{k}">{" / ".join(f"<span>{number}</span>" for number in numbers)}</td>'

    body = ""
    for before, subset in zip([[], *subsets], subsets):
        body += (f'<tr{" class=size" * (len(subset) > len(before))}><th scope="row">{escape(" ".join(subset)) or "nothing"}</th>'
                 f'{"".join(cell(name, subset) for name in names)}</tr>')
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in names)
    return scrolled(f"{LABEL[method]}, grid", f'<table><caption>{label(i, method)}<span class="both">: '
                    f'{escape(" / ".join(map(short, forms)))}</span></caption><thead><tr><th scope="col">observed</th>{head}</tr></thead>'
                    f"<tbody>{body}</tbody></table>", "map")
