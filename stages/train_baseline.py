"""One joint-posterior VAE: poe (MVAE), moe (MMVAE), mopoe (MoPoE-VAE) or mvtcae (MVTCAE).

    python -m stages.train_baseline mopoe
    torchrun --nproc-per-node 2 -m stages.train_baseline mopoe      # by several processes together

The unimodal VAEs' networks, likelihood, optimiser, epochs and data; one latent shared by all modalities.
"""

import argparse
from functools import partial
from pathlib import Path

import torch

from stages.lib import artifacts, data, networks, objectives, parallel, params, posteriors, runtime, training

OUT = Path("models/baseline")
METHODS = ("poe", "moe", "mopoe", "mvtcae")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("method", choices=METHODS)
    method = parser.parse_args().method
    p = params.load()
    runtime.begin("train_baseline", method, several=True)
    device = runtime.setup(p.threads)
    train, test = data.load_split("train", device), data.load_split("test", device)
    names, dim = train.modalities, p.baseline.latent_dim

    encoders, decoders, shapes = [], [], {}
    for name in names:
        shapes[name] = dict(image_shape=list(train.images[name].shape[1:]), latent_dim=dim)
        with runtime.seeded("train_baseline", p.seed, method, name):
            encoders.append(networks.Encoder(**shapes[name]).to(device))
            decoders.append(networks.Decoder(**shapes[name]).to(device))
    nll = partial(objectives.NLL[p.vae.likelihood], scale=p.vae.scale)
    rng = runtime.generator(device, "train_baseline", p.seed, method)
    all_subsets = posteriors.subsets(range(len(names)))
    members = torch.tensor([[m in subset for m in range(len(names))] for subset in all_subsets], device=device)

    def objective(split, index, beta, rng, mine=slice(None)):
        """The method's loss over the rows `mine` of a batch; what is random is drawn for all of it."""
        xs = [data.to_float(split.images[name][index[mine]]) for name in names]  # M times B, C, H, W
        experts = [encode(x) for encode, x in zip(encoders, xs)]
        mean, logvar = (torch.stack(part) for part in zip(*experts))  # M, B, D
        noise = lambda *rows: torch.randn(*rows, len(index), dim, generator=rng, device=device)[..., mine, :]
        component = lambda k: torch.randint(k, (len(index),), generator=rng, device=device)[mine]
        if method == "poe":
            return objectives.poe(xs, mean, logvar, decoders, noise(len(names) + 1), beta, nll)
        if method == "moe":
            return objectives.moe(xs, mean, logvar, decoders, noise(), component(len(names)), beta, nll)
        if method == "mopoe":
            return objectives.mopoe(xs, mean, logvar, decoders, noise(), component(len(members)), members, beta, nll)
        return objectives.mvtcae(xs, mean, logvar, decoders, noise(), beta, p.baseline.total_correlation, nll)

    final_beta = getattr(p.baseline.beta, method)

    def loss(index, progress):
        return objective(train, index, objectives.kl_weight(progress, p.vae.warmup, final_beta), rng, parallel.share(len(index)))

    @torch.no_grad()
    def held_out():
        index = torch.arange(min(1000, len(test)), device=device)
        value, _ = objective(test, index, final_beta, runtime.generator(device, "held out"))
        return {"held_out": float(value)}

    history = training.train(
        f"train_baseline {method}", torch.nn.ModuleList(encoders + decoders), loss, len(train),
        batch_size=p.vae.batch_size, epochs=p.vae.epochs, learning_rate=p.vae.learning_rate,
        lr_schedule=p.vae.lr_schedule, generator=rng, after_epoch=held_out)
    if runtime.RANK > 0:
        return
    with artifacts.together():
        for name, encoder, decoder in zip(names, encoders, decoders):
            artifacts.save_module(OUT / method / name / "encoder.safetensors", encoder, shapes[name])
            artifacts.save_module(OUT / method / name / "decoder.safetensors", decoder, shapes[name])
        artifacts.save_json(OUT / method / "history.json", history)


if __name__ == "__main__":
    runtime.run(main)
