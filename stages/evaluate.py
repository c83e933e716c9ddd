"""The observed-subset grid of one method: every target given every subset of the others, and given nothing.

    python -m stages.evaluate eb_mvae

Coherence, Frechet distance and diversity of each cell; unconditional coherence; the sample images of the figures;
for the energies also their AUROC.
"""

import argparse
import sys
from pathlib import Path

import torch
from tqdm import tqdm

from stages.lib import (artifacts, data, evaluation, features, metrics, networks, params, posteriors, runtime,
                        sampling)

OUT = Path("results")
METHODS = ("eb_mvae", "eb_mvae_annealed", "poe", "moe", "mopoe", "mvtcae")
FOLDER = {"eb_mvae": Path("models/ebm"), "eb_mvae_annealed": Path("models/annealed")}
WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
FIGURE_ROWS = 8  # unconditional tuples shown in Figure 1


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
    labels = test.labels[index]
    seeds = lambda subset: [runtime.seed_of("evaluate", p.seed, method, subset, i) for i in range(len(index))]
    latents, decoders, extras = (energy_based if method in FOLDER else baseline)(method, p, test, index, device)
    judges = evaluation.load_judges(names, device)
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
        z = latents(subset, seeds(subset))
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
                judged[target] = torch.as_tensor(predicted)
                shown[f"unconditional_{target}"] = images[:FIGURE_ROWS]
            if len(subset) == len(names) - 1:
                row["distance_to_unimodal_vae"] = metrics.frechet(
                    *metrics.feature_statistics(found), *references[target]["vae"])
                shown[f"given_rest_{target}"] = images[evaluation.figure_rows(own)]
            place = torch.searchsorted(kept, evaluation.page_rows(labels)).clamp(max=len(kept) - 1)  # one that diverged: the next
            cells_of[target].append(images[place])
            rows.append({**row, "seed": p.seed})
    every, most, by_modality = metrics.agreement(torch.stack([judged[name] for name in names], 1))
    unconditional = {"all_agree": every, f"{WORDS[len(names) - 1]}_agree": most, "agreement": dict(zip(names, by_modality))}
    if any("warning" in row for row in rows):
        print(f"WARNING: evaluate {method}: {next(r['warning'] for r in rows if 'warning' in r)}", file=sys.stderr)
    shown.update({f"cells_{name}": torch.stack(found) for name, found in cells_of.items()})  # its rows' order; row, tuple, C, H, W
    for name, images in shown.items():
        artifacts.save_array(OUT / method / f"{name}.npy", images.cpu().numpy())
    artifacts.save_json(OUT / method / "results.json", {
        "rows": rows, "unconditional": unconditional, **extras(), **evaluation.about(p, device)})
    given = lambda k: sum(r["coherence"] for r in rows if r["n_observed"] == k) / sum(r["n_observed"] == k for r in rows)
    print(f"evaluate {method}: coherence given 1.. " + " ".join(f"{given(k):.3f}" for k in range(1, len(names)))
          + f", unconditional all agree {every:.3f}", flush=True)


def energy_based(method, p, test, index, device):
    """A sampler (subset, seeds) -> latents (n, M, d), decoders, and the energy's AUROC.

    eb_mvae samples by eq. 2 and eq. 3 of the paper; eb_mvae_annealed goes down the noise levels given what is observed.
    """
    names, folder = test.modalities, FOLDER[method]
    build = networks.joint if method == "eb_mvae" else networks.Annealed
    model = artifacts.load_module(folder / "joint.safetensors", build, device)
    standard, _ = artifacts.load_tensors(folder / "standardisation.safetensors", device)
    mean, logvar, _ = data.load_latents("test", device)
    mean, std = data.standardised(mean[index], logvar[index], **standard)  # n, M, d
    if method == "eb_mvae":
        std = std * p.ebm.fit.posterior_scale  # as the energy was fitted
    swap = lambda z: z.transpose(0, 1)  # (n, M, d) <-> (M, n, d)

    def posterior_samples(seeds):
        return mean + std * sampling.sample_noise(mean.shape[1:], seeds).to(device)  # n, M, d

    def langevin(observed, free, seeds):
        free = free.repeat_interleave(mean.shape[2])  # M*d
        z = sampling.conditional(model.score, observed.flatten(1), free, seeds, p.ebm.langevin_steps, p.ebm.step_size,
                                 p.ebm.noise_scale)
        return z.unflatten(1, mean.shape[1:])

    def annealed(observed, free, seeds):
        of_free = model.noise_given(swap(observed), free, p.annealed.guidance)

        def estimate(z, t):
            eps = torch.zeros_like(z)  # n, M, d
            eps[:, free] = swap(of_free(swap(z[:, free]), t.T[free]))
            return eps

        return sampling.annealed(estimate, observed, free, seeds, p.annealed.steps)

    def latents(subset, seeds):
        observed = posterior_samples(seeds)
        free = torch.tensor([name not in subset for name in names], device=device)
        size = p.evaluate.batch_size
        draw = langevin if method == "eb_mvae" else annealed
        with runtime.fast_products(device):
            z = [draw(part, free, seeds[i * size : (i + 1) * size]) for i, part in enumerate(observed.split(size))]
        return torch.cat(z) * standard["scale"] + standard["shift"]

    @torch.no_grad()
    def energy_auroc():
        """How often a mismatched tuple has the higher energy: one modality's latent comes from another digit's tuple."""
        matching = posterior_samples([runtime.seed_of("auroc", p.seed, i) for i in range(len(index))])
        labels = test.labels[index]
        rng = runtime.generator("cpu", "auroc", p.seed)
        other = torch.tensor([int(different[torch.randint(len(different), (), generator=rng)]) for different in
                              (torch.nonzero(labels != label).flatten() for label in labels)], device=device)
        swapped = torch.randint(len(names), (len(index),), generator=rng).to(device)
        mismatched, rows = matching.clone(), torch.arange(len(index), device=device)
        mismatched[rows, swapped] = matching[other, swapped]
        clean = torch.zeros(len(names), len(index), device=device)
        energy = lambda z: model(z.flatten(1)) if method == "eb_mvae" else model(swap(z), clean)
        energies = [energy(z).cpu().numpy() for z in (mismatched, matching)]
        return {"energy_auroc": metrics.auroc(*energies)}

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
