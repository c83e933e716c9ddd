"""The grid of one method: every target given every subset of the others, and given nothing.

    python -m stages.evaluate eb_mvae

Coherence, Fréchet distance and diversity of each cell; unconditional coherence; the sample images
of the figures; for the energies also their AUROC.
"""

import importlib
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from ebmvae import command, params
from ebmvae.core import artifacts, devices, random
from ebmvae.core.messages import say
from ebmvae.data import latents, splits
from ebmvae.evaluation import fitted, grid, metrics
from ebmvae.evaluation.subsets import observed_subsets, subset_name
from ebmvae.methods import METHODS
from ebmvae.vae.networks import Decoder, Encoder

OUT = Path("results")
FIGURE_ROWS = 8  # unconditional tuples shown in Figure 1
SHARES = (0, 1 / 8, 1 / 4, 1 / 2, 1)  # of a sampler's steps, at which the page shows a trajectory


@dataclass
class Sampler:
    """A method at work on the test tuples."""

    draw: Callable  # (subset, seeds, rows=slice(None), callback=None) -> latents (n, M, d)
    decoders: dict[str, torch.nn.Module]
    further: dict  # what else goes into results.json
    steps: int = 0  # of an energy's sampler


def main():
    parser = command.parser(__doc__)
    parser.add_argument("method", choices=METHODS)
    method = parser.parse_args().method
    p = params.load()
    with command.exclusive("evaluate", method):
        evaluate(method, p)


def evaluate(method, p, callback=None):
    """Measure and write results/METHOD; callback(subset, images) after every subset of the grid."""
    device = devices.setup(p.threads)
    test = splits.load_split("test", device)
    index = grid.test_tuples(p, len(test), device)
    labels, names = test.labels[index], test.modalities
    # The same tuples with the same noise in every cell: two cells differ in what is observed only.
    seeds = [random.seed_of("evaluate", p.seed, i) for i in range(len(index))]
    build = energy_sampler if METHODS[method].kind == "energy" else baseline_sampler
    sampler = build(method, p, test, index, device)
    ruler = grid.load_ruler(p, test, device)
    rows, predicted, pictures = run_grid(method, sampler, ruler, labels, seeds, p, callback)
    results = {"rows": rows, "unconditional": {}, **sampler.further}
    if splits.n_classes(test.labels) > 1:
        results["unconditional"] = agreement({name: predicted[name] for name in names})
    if sampler.steps:
        images, results["trajectory"] = trajectory(sampler, names, seeds, grid.page_rows(labels))
        pictures.update(images)
    with artifacts.together():
        for name, images in pictures.items():
            artifacts.save_array(OUT / method / f"{name}.npy", images.cpu().numpy())
        content = {**results, **grid.about(p, device)}
        artifacts.save_json(OUT / method / "results.json", content)
    summarise(method, results, ruler.distance)


def run_grid(method, sampler, ruler, labels, seeds, p, callback=None):
    """Rows of results.json, {target: classes predicted given nothing}, {name: uint8 images}."""
    names, rows, predicted = list(sampler.decoders), [], {}
    pictures, cells = {}, defaultdict(list)
    references = {name: grid.reference_statistics(name) for name in names}
    subsets = observed_subsets(names, p.evaluate.max_subsets)
    for subset in tqdm(subsets, f"evaluate {method}", unit="subset", disable=None):
        z = sampler.draw(subset, seeds)
        kept = grid.converged(z, f"evaluate {method}: given {subset_name(subset)}")
        head = {"observed": subset_name(subset), "n_observed": len(subset)}
        lost = {"diverged": len(z) - len(kept)} if len(kept) < len(z) else {}
        # Of those that the page shows, one that diverged is replaced by the next.
        shown = torch.searchsorted(kept, grid.page_rows(labels)).clamp(max=len(kept) - 1)
        for m, target in enumerate(names):
            if target in subset:
                continue
            images_of = decoded(sampler.decoders[target], z[:, m], kept)
            seen = grid.look_at(images_of, len(kept), ruler.classifiers[target], ruler)
            images, classes, extracted = seen
            known = labels[kept] if subset else None
            real = references[target]["real"]
            numbers = grid.measure(classes, known, extracted, real, ruler.distance)
            row = {"method": method, "target": target, **head, **numbers, **lost}
            if not subset:
                predicted[target] = classes
                pictures[f"unconditional_{target}"] = images[:FIGURE_ROWS]
            if len(subset) == len(names) - 1:
                own, vae = metrics.feature_statistics(extracted), references[target]["vae"]
                row["distance_to_unimodal_vae"] = metrics.frechet(*own, *vae)
                pictures[f"given_rest_{target}"] = images[grid.figure_rows(labels[kept])]
            cells[target].append(images[shown])
            rows.append({**row, "seed": p.seed})
        if callback:
            callback(subset, len(kept) * (len(names) - len(subset)))
    # In the order of the target's rows: row, tuple, C, H, W.
    pictures.update({f"cells_{name}": torch.stack(images) for name, images in cells.items()})
    return rows, predicted, pictures


def decoded(decoder, z, kept):
    """A function from int64 rows of `kept` to the uint8 images that z (n, d) decodes to."""

    def images_of(rows):
        return splits.to_uint8(decoder(z[kept[rows.to(kept.device)]]))

    return images_of


def agreement(predicted):
    """Unconditional coherence of {name: predicted classes (n,)}, for results.json."""
    all_agree, by_modality = metrics.agreement(np.stack(list(predicted.values()), 1))
    return {"all_agree": all_agree, "agreement": dict(zip(predicted, by_modality, strict=True))}


def summarise(method, results, distance):
    """Print the mean by number observed, and a warning where distances are unreliable."""
    rows = results["rows"]
    metric = "coherence" if results["unconditional"] else distance
    sizes = sorted({row["n_observed"] for row in rows} - {0})
    by_size = [[row[metric] for row in rows if row["n_observed"] == size] for size in sizes]
    numbers = " ".join(f"{sum(values) / len(values):.3f}" for values in by_size)
    whole = "no labels, so no coherence"
    if results["unconditional"]:
        whole = f"unconditional all agree {results['unconditional']['all_agree']:.3f}"
    print(f"evaluate {method}: {metric} given 1.. {numbers}; {whole}", flush=True)
    warnings = [row["warning"] for row in rows if "warning" in row]
    if warnings:
        say(f"WARNING: evaluate {method}: {warnings[0]}")


@torch.no_grad()
def trajectory(sampler, names, seeds, rows):
    """The tuples `rows` on their way, given the first modality: images, and which steps they show.

    Images are {"trajectory_NAME": uint8 (K, n, C, H, W)} of every modality.
    """
    steps, states = sorted({round(sampler.steps * share) for share in SHARES}), []

    def keep(step, z):
        if step in steps:
            states.append(z.nan_to_num())

    sampler.draw(names[:1], [seeds[i] for i in rows], rows, keep)
    images = {
        f"trajectory_{name}": torch.stack([splits.to_uint8(decode(z[:, m])) for z in states])
        for m, (name, decode) in enumerate(sampler.decoders.items())
    }
    return images, {"observed": names[0], "steps": steps}


def energy_sampler(method, p, test, index, device):
    """An energy over the unimodal VAEs' latents, with its AUROC."""
    names = test.modalities
    energy = fitted.load(method, p, names, device)
    mean, logvar, _ = latents.load_latents("test", device)
    mean, std = fitted.posterior(energy, mean[index], logvar[index])

    def draw(subset, seeds, rows=slice(None), callback=None):
        observed = fitted.posterior_samples(mean[rows], std[rows], seeds)
        batch = len(observed) if callback else p.evaluate.batch_size
        return fitted.sample(energy, observed, subset, seeds, batch, callback)

    auroc_seeds = [random.seed_of("auroc", p.seed, i) for i in range(len(index))]
    matching = fitted.posterior_samples(mean, std, auroc_seeds)
    mismatched = swap_one(matching, test.labels[index], random.generator("cpu", "auroc", p.seed))
    energies = [fitted.energy(energy, z).cpu().numpy() for z in (mismatched, matching)]
    further = {"energy_auroc": metrics.auroc(*energies), "fit": energy.fit}
    steps = energy.method.steps(energy.options)
    return Sampler(draw, load_networks("models/vae", names, "decoder", device), further, steps)


def swap_one(z, labels, generator):
    """z (n, M, d) with one modality of every tuple taken from a tuple of another class.

    Without labels: from any other tuple.
    """
    rows = torch.arange(len(z), device=z.device)
    classes = labels if len(labels.unique()) > 1 else rows
    others = []
    for own in classes:
        candidates = torch.nonzero(classes != own).flatten()
        others.append(int(candidates[torch.randint(len(candidates), (), generator=generator)]))
    other = torch.tensor(others, device=z.device)
    swapped = torch.randint(z.shape[1], (len(z),), generator=generator).to(z.device)
    mismatched = z.clone()
    mismatched[rows, swapped] = z[other, swapped]
    return mismatched


def baseline_sampler(method, p, test, index, device):
    """A joint-posterior VAE, sampled as its module says; one joint latent for all modalities."""
    names, entry = test.modalities, METHODS[method]
    module = importlib.import_module(entry.module)
    encoders = load_networks(entry.models, names, "encoder", device)
    experts = []
    with torch.no_grad():
        for name, encode in encoders.items():
            images = test.images[name][index].split(p.evaluate.batch_size)
            parts = [encode(splits.to_float(part)) for part in images]
            experts.append([torch.cat(part) for part in zip(*parts, strict=True)])
    mean, logvar = (torch.stack(part) for part in zip(*experts, strict=True))  # M, n, D

    def draw(subset, seeds, rows=slice(None), callback=None):
        eps = random.normal_per_sample(mean.shape[2:], seeds).to(device)  # n, D
        z = eps
        if subset:
            chosen = [names.index(name) for name in subset]
            z = module.sample(mean[chosen][:, rows], logvar[chosen][:, rows], eps, seeds)
        return z[:, None].expand(-1, len(names), -1)  # n, M, D

    return Sampler(draw, load_networks(entry.models, names, "decoder", device), further={})


def load_networks(folder, names, part, device):
    """{name: network} of FOLDER/NAME/PART.safetensors; part: encoder or decoder."""
    build = {"encoder": Encoder, "decoder": Decoder}[part]
    files = {name: Path(folder) / name / f"{part}.safetensors" for name in names}
    return {name: artifacts.load_module(file, build, device) for name, file in files.items()}


if __name__ == "__main__":
    command.run(main)
