"""Cost as work grows: seconds and memory at M = 2, 5, 10, 20, and with 1, 2 and 4 times the data.

    python -m benchmarks.scaling        (about 3 minutes on two cores, nothing beside it)

Four stages, each run whole in a process of its own: a unimodal VAE and MoPoE (2^M subsets) for one
epoch, the annealed energy for a fixed number of steps, its grid. Images are noise, and the networks
of the grid are as initialised (but for the energy, which was fitted): speed does not depend on what
they show. `polymnist.modalities` ends at 10, which only the stage that makes the tuples and the
coherence of labelled ones mind. Here tuples are made without it, and have no labels. A stage that
would hold more than MEMORY is stopped, and the table says so.

Writes scaling.json, scaling.png and the table in README.md. Growth rates are exponents of power
laws, fitted by least squares to the logarithms. What a process costs before it works (loading data,
and torch's own memory, nearly 800 MiB) makes them smaller.
"""

import json
import tempfile
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter, ScalarFormatter

from benchmarks import workspace
from ebmvae import command
from ebmvae.core import artifacts, devices
from ebmvae.data.latents import LATENTS
from ebmvae.data.splits import POLYMNIST
from ebmvae.evaluation.classifiers import FeatureNet
from ebmvae.reporting import figures
from ebmvae.vae.networks import Decoder

N_TRAIN, N_TEST, N_SAMPLES = 1000, 400, 100  # at 1 times the data; test tuples stay as many
LATENT_DIM, SHAPE = 96, (3, 28, 28)
SIZES = {
    "polymnist.digits": "embedded",
    "vae.epochs": 1,
    "vae.latent_dim": LATENT_DIM,
    "annealed.fit.infonce_steps": 60,
    "annealed.fit.steps": 60,
    "evaluate.max_subsets": 2,
}
MODALITIES = (2, 5, 10, 20)
TIMES_THE_DATA = (1, 2, 4)
USUAL = 5  # modalities while the data grow
STAGES = {  # name: stage and argument
    "unimodal VAE, an epoch": ("train_vae", "m1"),
    "MoPoE, an epoch": ("train_baseline", "mopoe"),
    "annealed EBM, 60 and 60 steps": ("fit_annealed",),
    "grid of the annealed EBM, 2 subsets a size": ("evaluate", "eb_mvae_annealed"),
}
MEMORY = 8.0  # GiB
THREADS = workspace.cores()
RESULTS = workspace.ROOT / "benchmarks" / "scaling.json"
PICTURE = workspace.ROOT / "benchmarks" / "scaling.png"
BEGIN, END = "<!-- scaling: begin -->", "<!-- scaling: end -->"


def main():
    command.parser(__doc__).parse_args()
    about, rows = devices.describe(devices.setup(THREADS)), []
    sizes = [(m, 1) for m in MODALITIES] + [(USUAL, k) for k in TIMES_THE_DATA[1:]]
    for modalities, times in sizes:
        with tempfile.TemporaryDirectory() as folder:
            rows += measure(folder, modalities, times)
    RESULTS.write_text(json.dumps({"conditions": about, "rows": rows}, indent=1) + "\n")
    draw(rows, PICTURE)
    workspace.splice(BEGIN, END, table(rows))


def measure(folder, modalities, times):
    """A row per stage, with `times` the data."""
    prepare(Path(folder), modalities, times * N_TRAIN)
    changes = {**SIZES, "threads": THREADS, "evaluate.n_samples": times * N_SAMPLES}
    workspace.set_params(folder, changes)
    rows, options = [], ("--measure", "whole", "--memory", str(MEMORY))
    for name, arguments in STAGES.items():
        if arguments[0] == "evaluate":
            workspace.python(folder, "stages.references")
        row = {"name": name, "modalities": modalities, "data": times}
        cost = workspace.attempted(folder, "benchmarks.timed", *arguments, *options)
        rows.append({**row, **(cost or {"seconds": None, "peak_mib": None})})
        text = f"more than {MEMORY:g} GiB"
        if cost:
            text = f"{cost['seconds']:.1f} s, {cost['peak_mib']:,.0f} MiB"
        print(f"M = {modalities}, {times} times the data, {name}: {text}", flush=True)
    return rows


def prepare(folder, modalities, n):
    """What the stages read, in `folder`.

    Noise in place of PolyMNIST, networks as initialised, latents at random.
    """
    rng = torch.Generator().manual_seed(0)
    names = [f"m{k + 1}" for k in range(modalities)]
    for split, size in (("train", n), ("test", N_TEST)):
        for name in names:
            images = torch.randint(256, (size, *SHAPE), generator=rng, dtype=torch.uint8)
            artifacts.save_array(folder / POLYMNIST / split / f"{name}.npy", images.numpy())
        one_class = np.zeros(size, np.int64)  # so there are no classifiers
        artifacts.save_array(folder / POLYMNIST / split / "labels.npy", one_class)
        mean, logvar = torch.randn(2, size, modalities, LATENT_DIM, generator=rng)
        tensors = {"mean": mean, "logvar": logvar - 2}
        file = folder / LATENTS / f"{split}.safetensors"
        artifacts.save_tensors(file, tensors, {"modalities": names})
    about = {"modalities": names, "digits": "own"}  # own: without crops
    artifacts.save_json(folder / POLYMNIST / "provenance.json", about)
    about = dict(image_shape=SHAPE, n_classes=1, n_modalities=modalities, feature_dim=128)
    file = folder / "models/classifiers/features.safetensors"
    artifacts.save_module(file, FeatureNet(**about), about)
    about = dict(image_shape=SHAPE, latent_dim=LATENT_DIM)
    for name in names:
        file = folder / f"models/vae/{name}/decoder.safetensors"
        artifacts.save_module(file, Decoder(**about), about)


def exponent(sizes, values):
    """b of the power law a * size^b nearest to `values`, by least squares on logarithms.

    A value may be None, where memory did not suffice, and is left out; None with fewer than two.
    """
    known = [(size, value) for size, value in zip(sizes, values, strict=True) if value]
    if len(known) < 2:
        return None
    x, y = np.log(np.array(known, float)).T
    return float(np.polyfit(x, y, 1)[0])


def series(rows):
    """Lists of sizes, seconds and MiB, by (name of the stage, "modalities" or "data")."""
    columns = {}
    for name in dict.fromkeys(row["name"] for row in rows):
        for axis, other, usual in (("modalities", "data", 1), ("data", "modalities", USUAL)):
            part = [row for row in rows if row["name"] == name and row[other] == usual]
            part.sort(key=lambda row: row[axis])
            keys = (axis, "seconds", "peak_mib")
            columns[name, axis] = [[row[key] for row in part] for key in keys]
    return columns


def table(rows):
    """The rows as two Markdown tables: what grows with M, and with the data."""
    return "\n\n".join(
        _table(rows, axis, letter, title)
        for axis, letter, title in (("modalities", "M", "M = {}"), ("data", "n", "{} × the data"))
    )


def _table(rows, axis, letter, title):
    parts = {name: part for (name, other), part in series(rows).items() if other == axis}
    sizes = next(iter(parts.values()))[0]
    lines = [
        f"| seconds / MiB | {' | '.join(map(title.format, sizes))} | grows as |",
        "| --- " * (len(sizes) + 2) + "|",
    ]
    for name, (_, seconds, memory) in parts.items():
        cells = [
            f"{s:.1f} / {mib:,.0f}" if s else f"over {MEMORY:g} GiB"
            for s, mib in zip(seconds, memory, strict=True)
        ]
        exponents = [exponent(sizes, values) for values in (seconds, memory)]
        growth = " / ".join("?" if b is None else f"{letter}^{b:.2f}" for b in exponents)
        lines.append(f"| {name} | {' | '.join(cells)} | {growth} |")
    return "\n".join(lines)


@figures.by_default()
def draw(rows, file):
    """Seconds and MiB, against M and against the data, on logarithmic axes.

    One line per stage, its exponent in the legend.
    """
    figure = Figure(figsize=(11, 7.5), layout="constrained")
    axes = figure.subplots(2, 2, sharey="row")
    data = f"times {N_TRAIN:,} tuples, or {N_SAMPLES} samples a cell; M = {USUAL}"
    units = ("seconds", "peak memory, MiB")
    for (name, kind), (sizes, *measured) in series(rows).items():
        for row, values, unit in zip(axes, measured, units, strict=True):
            ax, b = row[0 if kind == "modalities" else 1], exponent(sizes, values)
            label = name if b is None else f"{name}: exponent {b:.2f}"
            values = [np.nan if value is None else value for value in values]
            ax.loglog(sizes, values, marker="o", label=label)
            ax.set(xlabel="modalities M" if kind == "modalities" else data, ylabel=unit)
            ax.set_xticks(sizes)
    for ax in axes.flat:
        ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        for axis in (ax.xaxis, ax.yaxis):
            axis.set_major_formatter(ScalarFormatter())
            axis.set_minor_formatter(NullFormatter())
        ax.grid(alpha=0.3)
        ax.legend(fontsize=8, loc="upper left")
    for ax, _ in axes:
        low, high = ax.get_ylim()
        ax.set_ylim(low, high * (high / low) ** 0.4)  # room for the legend
    figure.savefig(file, dpi=110, metadata={"Software": None})


if __name__ == "__main__":
    command.run(main)
