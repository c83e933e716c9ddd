"""Figures 1 to 3 in the paper's layout, the full grid, the training curves.

Numbers and images in, figure out.
"""

import io

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from ebmvae.core import artifacts
from ebmvae.methods import METHODS, REFERENCES

METRIC_LABELS = {
    "coherence": "coherence",
    "fid": "FID",
    "frechet_polymnist": "Fréchet distance (PolyMNIST features)",
}
SHOWN = {**METHODS, **REFERENCES}  # whatever has a label and a colour
DPI = 100  # at most 8.8 inches: figures stay under 900 pixels wide
WIDTH = 8.8  # inches


def by_default():
    """Matplotlib's own settings, whatever a user's matplotlibrc says: for `with` or a decorator.

    matplotlib.style's context "default" would read the user's style files, which may be broken.
    """
    keys = matplotlib.rcParamsDefault.keys() - {"backend"}  # which is chosen by format
    return matplotlib.rc_context({key: matplotlib.rcParamsDefault[key] for key in keys})


@by_default()
def save(figure, path, caption):
    """Write PATH.png and PATH.pdf, below it the caption that says where the numbers come from."""
    style = dict(ha="center", va="bottom", fontsize=6.5, color="#555555", wrap=True)
    figure.text(0.5, 0.004, caption, **style)
    # No date: the same numbers give the same bytes.
    no_dates = {
        "png": {"Software": None},
        "pdf": {"CreationDate": None, "Creator": None, "Producer": None},
    }
    for suffix, metadata in no_dates.items():
        buffer = io.BytesIO()
        figure.savefig(buffer, format=suffix, dpi=DPI, metadata=metadata)
        artifacts.write(f"{path}.{suffix}", buffer.getvalue(), checksum=False)


def tile(images, gap=2, fill=255):
    """Images uint8 (rows, columns, C, H, W) -> one picture (height, width, 3).

    `gap` pixels of the grey value `fill` lie between them.
    """
    rows, columns, _, height, width = images.shape
    down, across = height + gap, width + gap
    padded = np.full((rows, columns, 3, down, across), fill, np.uint8)
    padded[:, :, :, :height, :width] = images  # grey (C = 1) broadcasts to three
    whole = padded.transpose(0, 3, 1, 4, 2).reshape(rows * down, columns * across, 3)
    return whole[: rows * down - gap, : columns * across - gap]


def side_by_side(images):
    """Images uint8 (N, C, H, W) of several modalities -> (N, M, C, H, W), for `tile`.

    Grey images become coloured, smaller ones are set in white.
    """
    channels, height, width = (
        max(sizes) for sizes in zip(*(x.shape[1:] for x in images), strict=True)
    )
    out = np.full((len(images[0]), len(images), channels, height, width), 255, np.uint8)
    for m, x in enumerate(images):
        top, left = (height - x.shape[2]) // 2, (width - x.shape[3]) // 2
        out[:, m, :, top : top + x.shape[2], left : left + x.shape[3]] = x
    return out


@by_default()
def panels(pictures, titles, columns=()):
    """Pictures side by side, (a), (b), (c); `columns` names the columns of each picture."""
    height, width, _ = pictures[0].shape
    panel_width = (WIDTH - 0.2) / len(pictures)
    figure = Figure(figsize=(WIDTH, panel_width * height / width + 0.75))
    axes = figure.subplots(1, len(pictures))
    step = (width + 2) / max(1, len(columns))
    for letter, axis, picture, title in zip("abcdef", axes, pictures, titles, strict=False):
        axis.imshow(picture, interpolation="nearest")
        axis.set_title(f"({letter}) {title}", fontsize=9)
        axis.set_yticks([])
        axis.set_xticks([step * (i + 0.5) - 1 for i in range(len(columns))], columns, fontsize=8)
        axis.tick_params(length=0)
        for side in axis.spines.values():
            side.set_visible(False)
    inch = 1 / figure.get_figheight()
    margins = dict(left=0.01, right=0.99, top=1 - 0.3 * inch, bottom=0.4 * inch)
    figure.subplots_adjust(**margins, wspace=0.06)
    return figure


@by_default()
def curves(table, spread, distance, targets):
    """Figure 2 and the grid: coherence (left) and Fréchet distance (right) by number observed.

    One row per target, one line per method; dashed lines are the references. `spread` holds the
    standard deviations over seeds in the shape of `table`, drawn as bands. Without labels there is
    no coherence, and the left column is missing.
    """
    first = table[next(iter(METHODS))][targets[0]]["given1"]
    metrics = [metric for metric in ("coherence", distance) if metric in first]
    figure = Figure(figsize=(WIDTH, 2.75 * len(targets) + 0.7))
    axes = figure.subplots(len(targets), len(metrics), squeeze=False)
    for row, target in zip(axes, targets, strict=True):
        for axis, metric in zip(row, metrics, strict=True):
            _draw_curves(axis, table, spread, target, metric)
    for axis in axes[-1]:
        axis.set_xlabel("number of observed modalities", fontsize=8)
    handles, labels = axes[0, 0].get_legend_handles_labels()
    style = dict(loc="upper center", fontsize=7, frameon=False, columnspacing=1.2)
    figure.legend(handles, labels, ncols=len(labels), **style)
    inch = 1 / figure.get_figheight()
    figure.tight_layout(rect=(0, 0.28 * inch, 1, 1 - 0.28 * inch))
    return figure


def _draw_curves(axis, table, spread, target, metric):
    """One panel of `curves`."""
    for method, entry in METHODS.items():
        cells = table[method][target]
        steps = [key for key in cells if key.startswith("given") and key != "given0"]
        counts = [int(key[5:]) for key in steps]
        values = np.array([cells[key][metric] for key in steps])
        style = dict(ms=4, lw=2.2 if entry.kind == "energy" else 1.4, color=entry.colour)
        axis.plot(counts, values, "o-", label=entry.label, **style)
        if method in spread:
            band = np.array([spread[method][target][key][metric] for key in steps])
            band_style = dict(color=entry.colour, alpha=0.2, lw=0)
            axis.fill_between(counts, values - band, values + band, **band_style)
    for reference, entry in REFERENCES.items():
        value = table[reference][target][metric]
        axis.axhline(value, ls="--", lw=1, color=entry.colour, label=entry.label)
    axis.set_title(f"{target} given others", fontsize=9)
    axis.set_ylabel(METRIC_LABELS[metric], fontsize=8)
    axis.set_xticks(counts)
    axis.tick_params(labelsize=8)
    axis.grid(alpha=0.25)
    axis.set_ylim(0, 1.02 if metric == "coherence" else None)


@by_default()
def training_curves(histories):
    """One panel per family of models: {"title": {"name": [(step, value), ...]}}."""
    figure = Figure(figsize=(WIDTH, 2.9))
    for axis, (title, lines) in zip(
        figure.subplots(1, len(histories)), histories.items(), strict=True
    ):
        for name, points in lines.items():
            entry = SHOWN.get(name)
            label, colour = (entry.label, entry.colour) if entry else (name, None)
            axis.plot(*zip(*points, strict=True), lw=1.4, label=label, color=colour)
        axis.set_title(title, fontsize=7)
        axis.set_xlabel("optimiser step", fontsize=8)
        axis.tick_params(labelsize=7)
        axis.grid(alpha=0.25)
        axis.legend(fontsize=7, frameon=False)
    figure.tight_layout(rect=(0, 0.08, 1, 1))
    return figure
