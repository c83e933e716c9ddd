"""The report as one page that fetches nothing, reports/index.html.

Here numbers become text and images become JPEG sheets; page.html.j2 beside this file holds all of
the HTML, its style and its script.
"""

import base64
import hashlib
import io
import re
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import jinja2
import numpy as np
from PIL import Image

from ebmvae.methods import METHODS, REFERENCES
from ebmvae.reporting import claims, figures
from ebmvae.reporting.formats import MISSING, amount, label, share, short_label

TEMPLATE = Path(__file__).with_name("page.html.j2")
BLOCK = 8  # JPEG compresses squares of 8 x 8: no square of a sheet holds two images

Images = Mapping[str, np.ndarray]  # by modality


@dataclass(frozen=True)
class PageContent:
    """All that the page shows. Methods stand in the order of METHODS, those that have `rows`.

    Data without labels have no coherence: it is None in `rows` and missing in `tables`.
    """

    facts: Mapping[str, str]  # term -> text, for the head of the page
    names: Sequence[str]  # of the modalities
    distance: str  # key of the distance: "fid" or "frechet_polymnist"
    tables: Sequence[Mapping]  # one per seed, as in table.json; empty where a seed is left out
    verdicts: Sequence[Mapping]  # what claims.check returns
    figures: Sequence[tuple[str, str, bytes]]  # (title, alternative text, PNG)
    rows: Mapping[str, Sequence[Mapping]]  # method -> the rows of its results.json
    cells: Mapping[str, Images]  # method -> target -> uint8 (row, tuple, C, H, W), in order of rows
    real: Images  # modality -> uint8 (tuple, C, H, W): the test images of those tuples
    tuples: Sequence[str]  # what to call each tuple
    # method -> {"observed": name, "steps": [int],
    #            "images": modality -> uint8 (step, tuple, C, H, W)}
    trajectories: Mapping[str, Mapping]

    @property
    def methods(self) -> list[str]:
        return [method for method in METHODS if method in self.rows]

    @property
    def metrics(self) -> dict[str, Callable[[float], str]]:
        """The metrics that any cell has, and how their numbers are written."""
        rows = [row for method in self.methods for row in self.rows[method]]
        formats = {"coherence": share, self.distance: amount}
        return {
            metric: text
            for metric, text in formats.items()
            if any(row[metric] is not None for row in rows)
        }

    @property
    def subsets(self) -> list[list[str]]:
        """The observed subsets that any cell has, small ones first."""
        rows = [row for method in self.methods for row in self.rows[method]]
        subsets = dict.fromkeys((row["n_observed"], row["observed"]) for row in rows)
        by_size = sorted(subsets, key=lambda subset: subset[0])
        return [observed.split("+") if size else [] for size, observed in by_size]


def render(content: PageContent) -> str:
    """The page as HTML; the same content gives the same text."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATE.parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["sha256"] = _sha256
    tables = [table for table in content.tables if table]
    methods = content.methods
    entries = [*(METHODS[method] for method in methods), *REFERENCES.values()]
    keys = (*METHODS, content.distance)
    return environment.get_template(TEMPLATE.name).render(
        facts=content.facts,
        distance=short_label(content.distance),
        labelled="coherence" in content.metrics,
        metrics=[short_label(metric) for metric in content.metrics],
        n_seeds=len(tables),
        seed=content.rows[methods[0]][0]["seed"],
        swatches=[{"label": entry.label, "colour": entry.colour} for entry in entries],
        key_numbers=_key_numbers(content, tables),
        bounds=_upper_bounds(content, tables),
        claims=[_claim(claim, keys) for claim in content.verdicts],
        figures=[_figure(*figure) for figure in content.figures],
        grids=[{"swatch": i, "rows": _grid(content, method)} for i, method in enumerate(methods)],
        data=_data(content),
    )


def _data(content: PageContent) -> dict:
    """What the script of the page works on."""
    names, methods = content.names, content.methods
    return {
        "names": list(names),
        "tuples": list(content.tuples),
        "methods": [label(method) for method in methods],
        "metrics": [short_label(metric) for metric in content.metrics],
        "subsets": content.subsets,
        "real": [sheet(content.real[name][None]) for name in names],
        "cells": [[sheet(content.cells[method][name]) for name in names] for method in methods],
        "trajectories": [
            {
                "method": i,
                "observed": trajectory["observed"],
                "steps": list(trajectory["steps"]),
                "sheets": [sheet(trajectory["images"][name]) for name in names],
            }
            for i, method in enumerate(methods)
            if (trajectory := content.trajectories.get(method))
        ],
    }


def _key_numbers(content: PageContent, tables: Sequence[Mapping]) -> dict:
    """A row per method: means over targets given 1 to M - 1, agreement, AUROC; the best marked."""
    parts = [[table[m] for table in tables if m in table] for m in content.methods]  # seeds
    groups = []
    for metric, text in content.metrics.items():
        columns = {}
        for size in range(1, len(content.names)):
            values = [
                [
                    statistics.fmean(part[name][f"given{size}"][metric] for name in content.names)
                    for part in seeds
                ]
                for seeds in parts
            ]
            columns[size] = _column(values, text)
        groups.append(({"title": f"{short_label(metric)}, given"}, columns))
    unconditional = {}
    if "coherence" in content.metrics:  # agreement needs labels as well
        agree = [[part["unconditional"].get("all_agree") for part in seeds] for seeds in parts]
        unconditional["all agree"] = _column(agree, share)
    auroc = [[part.get("energy_auroc") for part in seeds] for seeds in parts]
    unconditional["AUROC"] = _column(auroc, share)
    groups.append(({"title": "unconditional"}, unconditional))
    return _table(groups, [{"swatch": i} for i in range(len(parts))])


def _upper_bounds(content: PageContent, tables: Sequence[Mapping]) -> dict:
    """A row per target: coherence, distance and diversity of each reference."""
    groups = []
    for i, reference in enumerate(REFERENCES, len(content.methods)):
        seeds = [table[reference] for table in tables if reference in table]
        columns = {
            short_label(metric): [
                _number([part[name].get(metric) for part in seeds], text) for name in content.names
            ]
            for metric, text in {**content.metrics, "diversity": amount}.items()
        }
        groups.append(({"swatch": i}, columns))
    return _table(groups, [{"title": name} for name in content.names])


def _table(groups: Sequence[tuple[dict, dict]], rows: Sequence[dict]) -> dict:
    """Groups of columns (heading, {column: [number of each row]}) as the template takes them."""
    return {
        "groups": [{**heading, "columns": list(columns)} for heading, columns in groups],
        "rows": [
            {
                **heading,
                "groups": [[cells[i] for cells in columns.values()] for _, columns in groups],
            }
            for i, heading in enumerate(rows)
        ],
    }


def _number(values: Sequence[float | None], text: Callable[[float], str]) -> dict:
    """A number of each seed as its mean and, with several seeds, their standard deviation."""
    if not values or None in values:
        return {"mean": MISSING, "deviation": None, "best": False}
    deviation = text(statistics.stdev(values)) if len(values) > 1 else None
    return {"mean": text(statistics.fmean(values)), "deviation": deviation, "best": False}


def _column(values: Sequence[Sequence[float | None]], text: Callable[[float], str]) -> list[dict]:
    """A number per method, the best of them marked; equal ones are all the best."""
    cells = [_number(seeds, text) for seeds in values]
    better = max if text is share else min
    means = [cell["mean"] for cell in cells if cell["mean"] != MISSING]
    best = better(means, key=float, default=None)
    return [{**cell, "best": cell["mean"] == best} for cell in cells]


def _claim(claim: Mapping, keys: Sequence[str]) -> dict:
    """A claim with its verdict; `keys` of methods and metrics are written as their labels."""

    def readable(text):
        return re.sub(rf"\b({'|'.join(keys)})\b", lambda match: short_label(match[1]), text)

    return {
        "verdict": claims.verdict(claim).strip("*"),
        "n_seeds": len(claim["seeds"]),
        "n_holding": sum(claim["seeds"]),
        "text": readable(claim["claim"]),
        "measured": [readable(part) for part in claim["measured"].split("; ")],
    }


def _figure(title: str, alternative: str, png: bytes) -> dict:
    with Image.open(io.BytesIO(png)) as image:
        width, height = image.size
    return {
        "title": title,
        "alternative": alternative,
        "png": _base64(png),
        "width": width,
        "height": height,
    }


def _grid(content: PageContent, method: str) -> list[dict]:
    """The table of a method, a row per subset: each cell's numbers, and its row of the sheet."""
    cells = {}
    for name in content.names:
        rows = [row for row in content.rows[method] if row["target"] == name]
        for k, row in enumerate(rows):
            numbers = [
                MISSING if row[metric] is None else text(row[metric])
                for metric, text in content.metrics.items()
            ]
            cells[name, row["observed"]] = {"observed": False, "row": k, "numbers": numbers}
    made, size = [], 0
    for subset in content.subsets:
        observed = "+".join(subset) or "none"
        made.append(
            {
                "observed": subset,
                "first_of_size": len(subset) > size,
                "cells": [
                    cells.get((name, observed), {"observed": name in subset, "row": None})
                    for name in content.names
                ],
            }
        )
        size = len(subset)
    return made


def sheet(images: np.ndarray) -> dict:
    """Images uint8 (rows, columns, C, H, W) as one JPEG in which each can be cut out by itself.

    Returns {"src": data URI, "width": W, "height": H, "pitch": [across, down]}.
    """
    height, width = images.shape[3:]
    padded = np.pad(images, [(0, 0)] * 3 + [(0, -height % BLOCK), (0, -width % BLOCK)], "edge")
    buffer = io.BytesIO()
    whole = Image.fromarray(figures.tile(padded, gap=0))
    whole.save(buffer, "JPEG", quality=90, subsampling=0, optimize=True)
    return {
        "src": f"data:image/jpeg;base64,{_base64(buffer.getvalue())}",
        "width": width,
        "height": height,
        "pitch": [padded.shape[4], padded.shape[3]],
    }


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _sha256(text: str) -> str:
    """The hash of a style or a script, as a Content Security Policy has it."""
    return _base64(hashlib.sha256(text.encode()).digest())
