"""Cost as work grows: seconds and memory at M = 2, 5, 10 and 20 modalities, and with 1, 2 and 4 times the data.

    python -m benchmarks.scaling        (about 3 minutes on two cores, nothing beside it)

Four stages, each run whole in a process of its own: a unimodal VAE and MoPoE (2^M subsets) for one epoch, the annealed energy
for a fixed number of steps, its grid. Images are noise, and the networks of the grid are as initialised (but for the energy,
which was fitted): speed does not depend on what they show. `polymnist.modalities` ends at 10, which only the stage that makes the
tuples and the coherence of labelled ones mind; here tuples are made without it, and have no labels. A stage that would hold more
than MEMORY is stopped, and said to be.

Writes scaling.json, scaling.png and the table in README.md. Growth rates are exponents of power laws, fitted by least squares
to the logarithms; what a process costs before it works (loading data, and torch's own memory, nearly 800 MiB) makes them smaller.
"""

import argparse
import json
import os
import tempfile
from pathlib import Path

import numpy as np
import torch

from benchmarks import workspace
from stages.lib import artifacts, data, networks, runtime

N_TRAIN, N_TEST, N_SAMPLES = 1000, 400, 100  # at 1 times the data; of test tuples there are always N_TEST
SIZES = {"polymnist.digits": "embedded", "vae.epochs": 1, "annealed.fit.contrast_steps": 60, "annealed.fit.steps": 60,
         "evaluate.max_subsets": 2}
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
THREADS = len(os.sched_getaffinity(0))
RESULTS, PICTURE = workspace.ROOT / "benchmarks" / "scaling.json", workspace.ROOT / "benchmarks" / "scaling.png"
BEGIN, END = "<!-- scaling: begin -->", "<!-- scaling: end -->"
LATENT_DIM = 96


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.parse_args()
    about, rows = runtime.describe(runtime.setup(THREADS)), []
    for modalities, times in [*((m, 1) for m in MODALITIES), *((USUAL, k) for k in TIMES_THE_DATA[1:])]:
        with tempfile.TemporaryDirectory() as folder:
            prepare(Path(folder), modalities, times * N_TRAIN)
            workspace.set_params(folder, {**SIZES, "threads": THREADS, "vae.latent_dim": LATENT_DIM,
                                          "evaluate.n_samples": times * N_SAMPLES})
            for name, command in STAGES.items():
                if command[0] == "evaluate":
                    workspace.python(folder, "stages.references")
                found = workspace.attempted(folder, "benchmarks.timed", *command, "--measure", "whole", "--memory", str(MEMORY))
                rows.append({"name": name, "modalities": modalities, "data": times, "seconds": None, "peak_mib": None, **(found or {})})
                told = f"{found['seconds']:.1f} s, {found['peak_mib']:,.0f} MiB" if found else f"more than {MEMORY:g} GiB"
                print(f"M = {modalities}, {times} times the data, {name}: {told}", flush=True)
    RESULTS.write_text(json.dumps({"conditions": about, "rows": rows}, indent=1) + "\n")
    draw(rows, PICTURE)
    workspace.splice(BEGIN, END, table(rows))


def prepare(folder, modalities, n):
    """What the stages read, in `folder`: noise in place of PolyMNIST, networks as initialised, latents at random."""
    rng, names, shape = torch.Generator().manual_seed(0), [f"m{k + 1}" for k in range(modalities)], (3, 28, 28)
    for split, size in (("train", n), ("test", N_TEST)):
        for name in names:
            image = torch.randint(256, (size, *shape), generator=rng, dtype=torch.uint8)
            artifacts.save_array(folder / data.POLYMNIST / split / f"{name}.npy", image.numpy())
        artifacts.save_array(folder / data.POLYMNIST / split / "labels.npy", np.zeros(size, np.int64))  # one class: no judges
        mean, logvar = torch.randn(2, size, modalities, LATENT_DIM, generator=rng)
        artifacts.save_tensors(folder / data.LATENTS / f"{split}.safetensors", {"mean": mean, "logvar": logvar - 2}, {"modalities": names})
    artifacts.save_json(folder / data.POLYMNIST / "provenance.json", {"modalities": names, "digits": "own"})  # own: without crops
    features = dict(image_shape=shape, n_classes=1, n_modalities=modalities, feature_dim=128)
    artifacts.save_module(folder / "models/judge/features.safetensors", networks.FeatureNet(**features), features)
    for name in names:
        vae = dict(image_shape=shape, latent_dim=LATENT_DIM)
        artifacts.save_module(folder / f"models/vae/{name}/decoder.safetensors", networks.Decoder(**vae), vae)


def exponent(sizes, values):
    """b of the power law a * size^b nearest to `values`, by least squares on logarithms; None with fewer than two values.

    A value may be None: it was not to be had, and is left out.
    """
    known = [(size, value) for size, value in zip(sizes, values) if value]
    if len(known) < 2:
        return None
    x, y = np.log(np.array(known, float)).T
    return float(np.polyfit(x, y, 1)[0])


def series(rows):
    """What grew, by (name of the stage, "modalities" or "data"): lists of sizes, seconds and MiB."""
    found = {}
    for name in dict.fromkeys(row["name"] for row in rows):
        for axis, other, usual in (("modalities", "data", 1), ("data", "modalities", USUAL)):
            part = sorted((row for row in rows if row["name"] == name and row[other] == usual), key=lambda row: row[axis])
            found[name, axis] = [[row[key] for row in part] for key in (axis, "seconds", "peak_mib")]
    return found


def table(rows):
    """The rows as two Markdown tables: what grows with M, and with the data."""
    lines = []
    for axis, title in (("modalities", "M = {}"), ("data", "{} × the data")):
        parts = {name: part for (name, other), part in series(rows).items() if other == axis}
        sizes = next(iter(parts.values()))[0]
        if lines:
            lines.append("")
        lines += [f"| seconds / MiB | {' | '.join(map(title.format, sizes))} | grows as |", "| --- " * (len(sizes) + 2) + "|"]
        letter = "M" if axis == "modalities" else "n"
        for name, (_, seconds, memory) in parts.items():
            cells = [f"{s:.1f} / {m:,.0f}" if s else f"over {MEMORY:g} GiB" for s, m in zip(seconds, memory)]
            growth = [exponent(sizes, values) for values in (seconds, memory)]
            told = " / ".join("?" if b is None else f"{letter}^{b:.2f}" for b in growth)
            lines.append(f"| {name} | {' | '.join(cells)} | {told} |")
    return "\n".join(lines)


def draw(rows, file):
    """Seconds and MiB, against M and against the data, on logarithmic axes; a line a stage, its exponent in the legend."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt
    from matplotlib.ticker import LogLocator, NullFormatter, ScalarFormatter

    figure, axes = plt.subplots(2, 2, figsize=(11, 7.5), sharey="row", layout="constrained")
    for (name, axis), (sizes, *values) in series(rows).items():
        for place, measured, unit in zip(axes, values, ("seconds", "peak memory, MiB")):
            ax = place[0 if axis == "modalities" else 1]
            b = exponent(sizes, measured)
            ax.loglog(sizes, [np.nan if value is None else value for value in measured], marker="o",
                      label=name if b is None else f"{name}: exponent {b:.2f}")
            of_data = f"times {N_TRAIN:,} tuples, or {N_SAMPLES} samples a cell; M = {USUAL}"
            ax.set(xlabel="modalities M" if axis == "modalities" else of_data, ylabel=unit)
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
    plt.close(figure)


if __name__ == "__main__":
    main()
