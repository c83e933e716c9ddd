"""The observed-subset grid of one method: every target given every subset of the others, and given nothing.

    python -m stages.evaluate eb_mvae

Coherence, Frechet distance and diversity of each cell; unconditional coherence; the sample images of the figures;
for the energies also their AUROC.
"""

import argparse
import sys
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from stages.lib import (artifacts, data, evaluation, features, joint, metrics, networks, params, posteriors, runtime,
                        sampling)

OUT = Path("results")
METHODS = ("eb_mvae", "eb_mvae_annealed", "poe", "moe", "mopoe", "mvtcae")
WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
FIGURE_ROWS = 8  # unconditional tuples shown in Figure 1
WAY = (0, 1 / 8, 1 / 4, 1 / 2, 1)  # shares of a sampler's steps at which the report page shows its samples


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("method", choices=METHODS)
    method = parser.parse_args().method
    p = params.load()
    runtime.begin("evaluate", method)
    device = runtime.setup(p.threads)
    test = data.load_split("test", device)
    names = test.modalities
    index = evaluation.test_tuples(p, len(test), device)
    labels, labelled = test.labels[index], data.n_classes(test.labels) > 1
    # The same tuples with the same noise in every cell: what differs between two cells is what is observed, not luck.
    seeds = [runtime.seed_of("evaluate", p.seed, i) for i in range(len(index))]
    latents, decoders, extras = (energy_based if method in joint.FOLDER else baseline)(method, p, test, index, device)
    judges = evaluation.load_judges(test, device)
    extract = features.extractor(p, device)
    references = {name: evaluation.reference_statistics(name) for name in names}
    distance = features.distance_name(p)

    cells = [()]
    for size in range(1, len(names)):
        of_size = posteriors.subsets(names, size)
        if len(of_size) > p.evaluate.max_subsets:
            rng = runtime.generator("cpu", "subsets", size)
            kept = torch.randperm(len(of_size), generator=rng)[: p.evaluate.max_subsets]
            print(f"evaluate {method}: {len(kept)} of {len(of_size)} subsets of size {size}, drawn at random", flush=True)
            of_size = [of_size[i] for i in sorted(kept.tolist())]
        cells += of_size

    rows, shown, judged, cells_of = [], {}, {}, {name: [] for name in names}
    for subset in tqdm(cells, f"evaluate {method}", unit="subset", disable=not sys.stderr.isatty()):
        z = latents(subset, seeds)
        kept = evaluation.converged(z, f"evaluate {method}: given {posteriors.subset_name(subset)}")
        own, lost = labels[kept], len(z) - len(kept)
        for target in [name for name in names if name not in subset]:
            decode = lambda chosen: data.to_uint8(decoders[target](chosen))
            part = z if z.ndim == 2 else z[:, names.index(target)]  # one joint latent, or one a modality
            images, predicted, found = evaluation.judge_and_extract(
                lambda chosen: decode(part[kept[chosen.to(device)]]), len(kept), judges[target], extract, p)
            row = {"method": method, "target": target, "observed": posteriors.subset_name(subset),
                   "n_observed": len(subset),
                   **evaluation.measure(predicted, own if subset else None, found, references[target]["real"], distance),
                   **({"diverged": lost} if lost else {})}
            if not subset:
                judged[target] = predicted
                shown[f"unconditional_{target}"] = images[:FIGURE_ROWS]
            if len(subset) == len(names) - 1:
                row["distance_to_unimodal_vae"] = metrics.frechet(
                    *metrics.feature_statistics(found), *references[target]["vae"])
                shown[f"given_rest_{target}"] = images[evaluation.figure_rows(own)]
            place = torch.searchsorted(kept, evaluation.page_rows(labels)).clamp(max=len(kept) - 1)  # one that diverged: the next
            cells_of[target].append(images[place])
            rows.append({**row, "seed": p.seed})
    unconditional = {}
    if labelled:
        every, most, by_modality = metrics.agreement(np.stack([judged[name] for name in names], 1))
        unconditional = {"all_agree": every, f"{WORDS[len(names) - 1]}_agree": most, "agreement": dict(zip(names, by_modality))}
    if any("warning" in row for row in rows):
        print(f"WARNING: evaluate {method}: {next(r['warning'] for r in rows if 'warning' in r)}", file=sys.stderr)
    shown.update({f"cells_{name}": torch.stack(found) for name, found in cells_of.items()})  # its rows' order; row, tuple, C, H, W
    further = extras()
    if method in joint.FOLDER:
        steps = p.ebm.langevin_steps if method == "eb_mvae" else p.annealed.steps
        of_page = evaluation.page_rows(labels)
        images, at = trajectory(steps, decoders, lambda watch: latents(names[:1], [seeds[i] for i in of_page], of_page, watch))
        shown.update(images)
        further["trajectory"] = {"observed": names[0], "steps": at}
    with artifacts.together():
        for name, images in shown.items():
            artifacts.save_array(OUT / method / f"{name}.npy", images.cpu().numpy())
        artifacts.save_json(OUT / method / "results.json", {
            "rows": rows, "unconditional": unconditional, **further, **evaluation.about(p, device, p.matmul_precision if method in joint.FOLDER else "ieee")})
    metric = "coherence" if labelled else distance
    given = lambda k: sum(r[metric] for r in rows if r["n_observed"] == k) / sum(r["n_observed"] == k for r in rows)
    print(f"evaluate {method}: {metric} given 1.. " + " ".join(f"{given(k):.3f}" for k in range(1, len(names)))
          + (f", unconditional all agree {every:.3f}" if labelled else "; no labels, so no coherence"), flush=True)


@torch.no_grad()
def trajectory(steps, decoders, sample):
    """Samples on their way: {"trajectory_NAME": uint8 (K, n, C, H, W)} of every modality, and the K steps that it shows.

    `sample(watch)` draws n tuples in one batch and calls watch(step, z) with latents (n, M, d) after each of `steps` steps.
    """
    at, seen = sorted({round(steps * share) for share in WAY}), []
    sample(lambda step, z: step in at and seen.append(z))
    return {f"trajectory_{name}": torch.stack([data.to_uint8(decode(z[:, m].nan_to_num())) for z in seen])
            for m, (name, decode) in enumerate(decoders.items())}, at


def energy_based(method, p, test, index, device):
    """A sampler (subset, seeds) -> latents (n, M, d), decoders, and the energy's AUROC."""
    names = test.modalities
    fitted = joint.load(method, p, names, device)
    mean, logvar, _ = data.load_latents("test", device)
    mean, std = joint.posterior(fitted, mean[index], logvar[index])

    def latents(subset, seeds, rows=slice(None), watch=None):
        observed = joint.posterior_samples(mean[rows], std[rows], seeds)
        return joint.sample(fitted, observed, subset, seeds, len(observed) if watch else p.evaluate.batch_size, watch)

    def energy_auroc():
        """How often a mismatched tuple has the higher energy: one modality's latent comes from another digit's tuple."""
        matching = joint.posterior_samples(mean, std, [runtime.seed_of("auroc", p.seed, i) for i in range(len(index))])
        labels = test.labels[index]
        rng = runtime.generator("cpu", "auroc", p.seed)
        rows = torch.arange(len(index), device=device)
        differs = labels if len(labels.unique()) > 1 else rows  # without labels: any other tuple
        other = torch.tensor([int(different[torch.randint(len(different), (), generator=rng)]) for different in
                              (torch.nonzero(differs != own).flatten() for own in differs)], device=device)
        swapped = torch.randint(len(names), (len(index),), generator=rng).to(device)
        mismatched = matching.clone()
        mismatched[rows, swapped] = matching[other, swapped]
        return {"energy_auroc": metrics.auroc(*(joint.energy(fitted, z).cpu().numpy() for z in (mismatched, matching)))}

    decoders = {name: artifacts.load_module(f"models/vae/{name}/decoder.safetensors", networks.Decoder, device)
                for name in names}
    return latents, decoders, energy_auroc


def baseline(method, p, test, index, device):
    """A joint-posterior VAE: a sampler (subset, seeds) -> joint latents (n, D), and decoders.

    As published: poe and mvtcae take the product of the observed experts (poe with the prior), moe their mixture, and
    MoPoE the product too, which is the component of its mixture that belongs to the observed subset.
    """
    names = test.modalities
    folder = Path("models/baseline") / method
    load = lambda name, part, build: artifacts.load_module(folder / name / f"{part}.safetensors", build, device)
    experts = []
    with torch.no_grad():
        for name in names:
            encoder = load(name, "encoder", networks.Encoder)
            parts = [encoder(data.to_float(x)) for x in test.images[name][index].split(p.evaluate.batch_size)]
            experts.append([torch.cat(part) for part in zip(*parts)])
    mean, logvar = (torch.stack(part) for part in zip(*experts))  # M, n, D

    def latents(subset, seeds):
        noise = sampling.sample_noise(mean.shape[2:], seeds).to(device)  # n, D
        if not subset:
            return noise
        chosen = [names.index(name) for name in subset]
        if method == "moe":
            component = torch.tensor([seed % len(chosen) for seed in seeds], device=device)
            return posteriors.sample(*posteriors.choose(mean[chosen], logvar[chosen], component), noise)
        return posteriors.sample(*posteriors.product(mean[chosen], logvar[chosen], prior=method == "poe"), noise)

    return latents, {name: load(name, "decoder", networks.Decoder) for name in names}, dict


if __name__ == "__main__":
    runtime.run(main)
