"""Figures 1 to 3 in the paper's layout, the full grid and the training curves. Numbers and images in, figure out."""

import io

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402
import numpy as np  # noqa: E402

from stages.lib import artifacts  # noqa: E402

LABEL = {"eb_mvae": "EB-MVAE", "eb_mvae_annealed": "EB-MVAE annealed (ours)", "poe": "PoE (MVAE)", "moe": "MoE (MMVAE)", "mopoe": "MoPoE", "mvtcae": "MVTCAE",
         "unimodal_vae": "unimodal VAE", "real": "real images", "coherence": "coherence", "fid": "FID",
         "frechet_polymnist": "Fréchet distance (PolyMNIST features)"}
COLOUR = {"eb_mvae": "#d62728", "eb_mvae_annealed": "#8c1a11", "poe": "#1f77b4", "moe": "#2ca02c", "mopoe": "#9467bd", "mvtcae": "#ff7f0e",
          "unimodal_vae": "#555555", "real": "#aaaaaa"}
DPI = 100  # at most 8.8 inches: figures stay under 900 pixels wide


def save(figure, path, caption):
    """Write PATH.png and PATH.pdf with the caption (where the numbers come from) below; no date goes into either."""
    figure.text(0.5, 0.004, caption, ha="center", va="bottom", fontsize=6.5, color="#555555", wrap=True)
    for suffix, metadata in (("png", {"Software": None}), ("pdf", {"CreationDate": None, "Creator": None, "Producer": None})):
        buffer = io.BytesIO()
        figure.savefig(buffer, format=suffix, dpi=DPI, metadata=metadata)
        artifacts.write(f"{path}.{suffix}", buffer.getvalue(), checksum=False)
    plt.close(figure)


def tile(images):
    """Images uint8 (rows, columns, C, H, W) -> one picture (height, width, 3), two white pixels between them."""
    rows, columns, _, height, width = images.shape
    padded = np.full((rows, columns, 3, height + 2, width + 2), 255, np.uint8)
    padded[:, :, :, :height, :width] = images  # grey (C = 1) broadcasts to three
    return padded.transpose(0, 3, 1, 4, 2).reshape(rows * (height + 2), columns * (width + 2), 3)[:-2, :-2]


def alike(images):
    """Images uint8 (N, C, H, W) of several modalities -> (N, M, C, H, W) for `tile`: grey as colour, smaller ones set in white."""
    channels, height, width = (max(sizes) for sizes in zip(*(x.shape[1:] for x in images)))
    out = np.full((len(images[0]), len(images), channels, height, width), 255, np.uint8)
    for m, x in enumerate(images):
        top, left = (height - x.shape[2]) // 2, (width - x.shape[3]) // 2
        out[:, m, :, top : top + x.shape[2], left : left + x.shape[3]] = x
    return out


def panels(pictures, titles, columns=None):
    """Pictures side by side, (a), (b), (c); `columns` names the columns of each picture."""
    height, width, _ = pictures[0].shape
    each = 8.6 / len(pictures)
    figure, axes = plt.subplots(1, len(pictures), figsize=(8.8, each * height / width + 0.75))
    for letter, axis, picture, title in zip("abcdef", axes, pictures, titles):
        axis.imshow(picture, interpolation="nearest")
        axis.set_title(f"({letter}) {title}", fontsize=9)
        axis.set_yticks([])
        names = columns or []
        step = (width + 2) / max(1, len(names))
        axis.set_xticks([step * (i + 0.5) - 1 for i in range(len(names))], names, fontsize=8)
        axis.tick_params(length=0)
        for side in axis.spines.values():
            side.set_visible(False)
    figure.subplots_adjust(left=0.01, right=0.99, top=1 - 0.3 / figure.get_figheight(),
                           bottom=0.4 / figure.get_figheight(), wspace=0.06)
    return figure


def curves(table, spread, methods, distance, targets, references):
    """Coherence (left) and Frechet distance (right) against the number observed, a row a target: Figure 2 and the grid.

    `spread` holds the standard deviations over seeds in the shape of `table`, drawn as bands where there are any. Without
    labels there is no coherence, and the left column is missing.
    """
    metrics = [metric for metric in ("coherence", distance) if metric in table[methods[0]][targets[0]]["given1"]]
    figure, axes = plt.subplots(len(targets), len(metrics), figsize=(8.8, 2.75 * len(targets) + 0.7), squeeze=False)
    for row, target in zip(axes, targets):
        for axis, metric in zip(row, metrics):
            for method in methods:
                steps = {key: cell for key, cell in table[method][target].items() if key[:5] == "given" and key != "given0"}
                counts, values = [int(key[5:]) for key in steps], np.array([cell[metric] for cell in steps.values()])
                axis.plot(counts, values, "o-", ms=4, lw=2.2 if method.startswith("eb_mvae") else 1.4, color=COLOUR[method],
                          label=LABEL[method])
                if method in spread:
                    band = np.array([spread[method][target][key][metric] for key in steps])
                    axis.fill_between(counts, values - band, values + band, color=COLOUR[method], alpha=0.2, lw=0)
            for reference in references:
                axis.axhline(table[reference][target][metric], ls="--", lw=1, color=COLOUR[reference], label=LABEL[reference])
            axis.set_title(f"{target} given others", fontsize=9)
            axis.set_ylabel(LABEL[metric], fontsize=8)
            axis.set_xticks([int(key[5:]) for key in steps])
            axis.tick_params(labelsize=8)
            axis.grid(alpha=0.25)
        for axis, metric in zip(row, metrics):
            axis.set_ylim(0, 1.02 if metric == "coherence" else None)
    for axis in axes[-1]:
        axis.set_xlabel("number of observed modalities", fontsize=8)
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="upper center", ncols=len(labels), fontsize=7, frameon=False, columnspacing=1.2)
    figure.tight_layout(rect=(0, 0.28 / figure.get_figheight(), 1, 1 - 0.28 / figure.get_figheight()))
    return figure


def training_curves(histories):
    """One axis a family of models: {"title": {"name": [(step, value), ...]}}."""
    figure, axes = plt.subplots(1, len(histories), figsize=(8.8, 2.9))
    for axis, (title, lines) in zip(axes, histories.items()):
        for name, points in lines.items():
            axis.plot(*zip(*points), lw=1.4, label=LABEL.get(name, name), color=COLOUR.get(name))
        axis.set_title(title, fontsize=7)
        axis.set_xlabel("optimiser step", fontsize=8)
        axis.tick_params(labelsize=7)
        axis.grid(alpha=0.25)
        axis.legend(fontsize=7, frameon=False)
    figure.tight_layout(rect=(0, 0.08, 1, 1))
    return figure
