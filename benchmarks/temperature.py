"""The baselines at lower temperatures: the noise of their joint posteriors times tau.

    python -m benchmarks.temperature        (about five minutes)

To be run after `make repro`, in the project's folder; on validation tuples. tau 1 is as published,
0 the posterior's mean. Prints coherence and Fréchet distance given 1, 2, ... others, means over all
targets and subsets, and in how many of these cells a method is at least as coherent as the annealed
energy on the same tuples. Writes nothing: this is docs/notebook/round-7.md.
"""

import importlib
import statistics
from collections import defaultdict

import torch

from ebmvae import command, params
from ebmvae.core import devices, random
from ebmvae.data import splits
from ebmvae.evaluation import grid
from ebmvae.methods import BASELINES, METHODS
from stages import evaluate

TEMPERATURES = (1.0, 0.5, 0.0)
OURS = "eb_mvae_annealed"


def main():
    command.parser(__doc__).parse_args()
    p = params.load()
    chosen = p.evaluate.model_copy(update={"tuples": "validation"})
    p = p.model_copy(update={"evaluate": chosen})
    device = devices.setup(p.threads)
    test = splits.load_split("test", device)
    index = grid.test_tuples(p, len(test), device)
    ruler = grid.load_ruler(p, test, device)
    seeds = [random.seed_of("evaluate", p.seed, i) for i in range(len(index))]  # as in evaluate

    def measure(method, sampler):
        labels = test.labels[index]
        rows, *_ = evaluate.run_grid(method, sampler, ruler, labels, seeds, p)
        return means(rows, ruler.distance)

    ours = measure(OURS, evaluate.energy_sampler(OURS, p, test, index, device))
    show(OURS, ours)
    for method in BASELINES:
        experts = encode(method, p, test, index, device)
        folder = METHODS[method].models
        decoders = evaluate.load_networks(folder, test.modalities, "decoder", device)
        for tau in TEMPERATURES:
            draw = drawing(method, test.modalities, *experts, tau)
            cells = measure(method, evaluate.Sampler(draw, decoders, {}))
            show(f"{method} tau {tau}", cells, ours)


@torch.no_grad()
def encode(method, p, test, index, device):
    """Means and log-variances (M, n, D) of the experts of a baseline, of the tuples `index`."""
    folder = METHODS[method].models
    encoders = evaluate.load_networks(folder, test.modalities, "encoder", device)
    experts = []
    for name, encoder in encoders.items():
        batches = test.images[name][index].split(p.evaluate.batch_size)
        parts = [encoder(splits.to_float(x)) for x in batches]
        experts.append([torch.cat(part) for part in zip(*parts, strict=True)])
    return [torch.stack(part) for part in zip(*experts, strict=True)]


def drawing(method, names, mean, logvar, tau):
    """The sampler of a baseline whose noise is multiplied by tau; experts (M, n, D)."""
    module = importlib.import_module(METHODS[method].module)

    def draw(subset, seeds):
        eps = tau * random.normal_per_sample(mean.shape[2:], seeds).to(mean.device)  # n, D
        z = eps
        if subset:
            observed = [names.index(name) for name in subset]
            z = module.sample(mean[observed], logvar[observed], eps, seeds)
        return z[:, None].expand(-1, len(names), -1)  # n, M, D

    return draw


def means(rows, distance):
    """{(target, number observed): (coherence, distance)}, means over subsets of one and more."""
    cells = defaultdict(list)
    for row in rows:
        if row["n_observed"]:
            cells[row["target"], row["n_observed"]].append((row["coherence"], row[distance]))
    return {
        cell: tuple(map(statistics.fmean, zip(*pairs, strict=True)))
        for cell, pairs in cells.items()
    }


def show(name, cells, ours=None):
    """A line: means by number observed, and the cells with at least the coherence of `ours`."""
    sizes = sorted({size for _, size in cells})
    by_size = [[pair for (_, k), pair in cells.items() if k == size] for size in sizes]
    coherence, distance = (
        [statistics.fmean(pair[which] for pair in pairs) for pairs in by_size] for which in (0, 1)
    )
    line = f"{name}: coherence {' '.join(f'{value:.3f}' for value in coherence)}; "
    line += f"distance {' '.join(f'{value:.0f}' for value in distance)}"
    if ours:
        good = [f"{t} given {k}" for (t, k), pair in cells.items() if pair[0] >= ours[t, k][0]]
        line += f"; as coherent as annealed in {len(good)} of {len(cells)} cells: "
        line += ", ".join(good) or "-"
    print(line, flush=True)


if __name__ == "__main__":
    command.run(main)
