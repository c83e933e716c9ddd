"""A fitted joint energy at work: latents of what is observed in, latents of every modality out; and the energy of a tuple.

Latents are (n, M, d), modalities in the order of `names`, in the VAEs' units; "standardised" ones are in units of the
aggregate posterior, as the energies know them.
"""

from dataclasses import dataclass
from pathlib import Path

import torch

from stages.lib import artifacts, data, networks, params, runtime, sampling

FOLDER = {"eb_mvae": Path("models/ebm"), "eb_mvae_annealed": Path("models/annealed")}


@dataclass
class Joint:
    """What `load` returns: the network of `method`, the moments that standardise, and its section of params.yaml."""

    method: str
    names: list
    model: torch.nn.Module
    standard: dict  # shift and scale (M, d) of the aggregate posterior
    options: params.EBM | params.Annealed
    device: torch.device
    precision: str = "ieee"  # of matrix products while sampling


def load(method, p, names, device):
    """The `Joint` fitted by `dvc repro`; method: eb_mvae or eb_mvae_annealed. Raises `UserError` where it is missing or damaged."""
    build = networks.joint if method == "eb_mvae" else networks.Annealed
    model = artifacts.load_module(FOLDER[method] / "joint.safetensors", build, device)
    standard, _ = artifacts.load_tensors(FOLDER[method] / "standardisation.safetensors", device)
    return Joint(method, list(names), model, standard, p.ebm if method == "eb_mvae" else p.annealed, device, p.matmul_precision)


def posterior(joint, mean, logvar):
    """Means and standard deviations (n, M, d) of the posteriors to condition on, standardised; widened as the energy was fitted."""
    mean, std = data.standardised(mean, logvar, **joint.standard)
    return mean, std * joint.options.fit.posterior_scale if joint.method == "eb_mvae" else std


def posterior_samples(mean, std, seeds):
    """One posterior sample a row, standardised (n, M, d); seeds: n integers."""
    return mean + std * sampling.sample_noise(mean.shape[1:], seeds).to(mean.device)


def sample(joint, observed, subset, seeds, batch_size=500, watch=None):
    """Latents (n, M, d) in the VAEs' units: those of the modalities in `subset` as in `observed`, the others drawn.

    observed: standardised posterior samples (n, M, d), read where the modality's name is in `subset`; seeds: n integers, one
    generator a row, so that results do not depend on the batch. eb_mvae goes by eq. 2 and eq. 3 of the paper, eb_mvae_annealed
    down the noise levels. `watch(step, z)` sees the latents of a batch before and after every step.
    """
    natural = lambda z: z * joint.standard["scale"] + joint.standard["shift"]
    free = torch.tensor([name not in subset for name in joint.names], device=joint.device)
    draw = _langevin if joint.method == "eb_mvae" else _annealed
    seen = watch and (lambda step, z: watch(step, natural(z)))
    with runtime.matmul_precision(joint.device, joint.precision):
        z = [draw(joint, part, free, seeds[i * batch_size : (i + 1) * batch_size], seen)
             for i, part in enumerate(observed.split(batch_size))]
    return natural(torch.cat(z))


def _langevin(joint, observed, free, seeds, watch):
    o, shape = joint.options, observed.shape[1:]
    seen = watch and (lambda step, z: watch(step, z.unflatten(1, shape)))
    z = sampling.conditional(joint.model.score, observed.flatten(1), free.repeat_interleave(shape[1]), seeds, o.langevin_steps,
                             o.step_size, o.noise_scale, seen)
    return z.unflatten(1, shape)


def _annealed(joint, observed, free, seeds, watch):
    o, shown = joint.options, max(1, len(free) - int(free.sum()))
    swap = lambda z: z.transpose(0, 1)  # (n, M, d) <-> (M, n, d)
    of_free = joint.model.noise_given(swap(observed), free, o.guidance, o.guidance_below, 1 + o.evidence / shown)

    def estimate(z, t):
        eps = torch.zeros_like(z)  # n, M, d
        eps[:, free] = swap(of_free(swap(z[:, free]), t.T[free]))
        return eps

    return sampling.annealed(estimate, observed, free, seeds, o.steps, watch)


@torch.no_grad()
def energy(joint, z):
    """E (n,) of standardised latents (n, M, d) of all modalities: lower where they belong together."""
    if joint.method == "eb_mvae":
        return joint.model(z.flatten(1))
    return joint.model(z.transpose(0, 1), torch.zeros(z.shape[1], len(z), device=joint.device))  # at noise level 0
