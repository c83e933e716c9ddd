"""The baselines at lower temperatures: the noise of their joint posteriors times tau, on validation tuples.

    python -m benchmarks.temperature        (after `make repro`, in the project's folder; about five minutes)

tau 1 is as published, 0 the posterior's mean. Prints coherence and Frechet distance given 1, 2, ... others, means over all
targets and subsets, and in how many of these cells a method is at least as coherent as the annealed energy on the same tuples.
Writes nothing: this is docs/experiments.md, round seven.
"""

import argparse
import statistics

from stages import evaluate
from stages.lib import data, evaluation, features, params, posteriors, runtime, sampling

TEMPERATURES = (1.0, 0.5, 0.0)


def main():
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    p = params.load()
    p = p.model_copy(update={"evaluate": p.evaluate.model_copy(update={"tuples": "validation"})})
    device = runtime.setup(p.threads)
    test = data.load_split("test", device)
    index = evaluation.test_tuples(p, len(test), device)
    judges, extract = evaluation.load_judges(test, device), features.extractor(p, device)
    seeds = [runtime.seed_of("evaluate", p.seed, i) for i in range(len(index))]  # as stages.evaluate has them

    def grid(latents, decoders):
        """{(target, number observed): (coherence, distance)}, means over subsets."""
        found = {}
        for size in range(1, len(test.modalities)):
            for subset in posteriors.subsets(test.modalities, size):
                z = latents(subset, seeds)
                for m, target in enumerate(test.modalities):
                    if target not in subset:
                        part = z if z.ndim == 2 else z[:, m]
                        images_of = lambda rows: data.to_uint8(decoders[target](part[rows.to(device)]))
                        _, predicted, of_images = evaluation.judge_and_extract(images_of, len(index), judges[target], extract, p)
                        row = evaluation.measure(predicted, test.labels[index], of_images,
                                                 evaluation.reference_statistics(target)["real"], features.distance_name(p))
                        found.setdefault((target, size), []).append((row["coherence"], row[features.distance_name(p)]))
        return {cell: tuple(map(statistics.fmean, zip(*pairs))) for cell, pairs in found.items()}

    ours = grid(*evaluate.energy_based("eb_mvae_annealed", p, test, index, device)[:2])
    show("eb_mvae_annealed", ours, ours)
    noise_of = sampling.sample_noise
    for method in evaluate.METHODS[2:]:
        for tau in TEMPERATURES:
            latents, decoders, _ = evaluate.baseline(method, p, test, index, device)
            sampling.sample_noise = lambda *arguments: tau * noise_of(*arguments)
            found = grid(latents, decoders)
            sampling.sample_noise = noise_of
            show(f"{method} tau {tau}", found, ours)


def show(name, found, ours):
    """A line: means by number observed, and the cells in which the coherence is at least that of `ours`."""
    sizes = sorted({size for _, size in found})
    mean = lambda size, which: statistics.fmean(pair[which] for cell, pair in found.items() if cell[1] == size)
    cells = [f"{target} given {size}" for (target, size), pair in found.items() if found is not ours and pair[0] >= ours[target, size][0]]
    print(f"{name}: coherence {' '.join(f'{mean(size, 0):.3f}' for size in sizes)}; distance {' '.join(f'{mean(size, 1):.0f}' for size in sizes)}; "
          f"as coherent as annealed in {len(cells)} of {len(found)} cells: {', '.join(cells) or '-'}", flush=True)


if __name__ == "__main__":
    runtime.run(main)
