"""Our trainers against other programs, in turns, in one run.

    python -m benchmarks.peers        (make bench installs what it compares with)

The same networks, likelihood, batch, data and threads. Sizes are those of DESIGN, section 4: 64
latents, batches of 128, squared error. Each turn is a process of its own.
"""

import tempfile

from benchmarks import workspace
from ebmvae import command
from ebmvae.core import devices

SIZES = {
    "polymnist.n_train": 4000,
    "polymnist.n_test": 1000,
    "classifier.epochs": 1,
    "classifier.feature_epochs": 1,
    "classifier.min_accuracy": 0,
    "vae.epochs": 1,
    "vae.likelihood": "gaussian",
    "vae.batch_size": 128,
    "vae.latent_dim": 64,
    "baseline.latent_dim": 64,
}
PAIRS = {  # name: our stage and its argument, the peer's kind, the unit
    "unimodal VAE / PNG files and DataLoader": ("train_vae", "m1", "loop", "images/s"),
    "unimodal VAE / pythae 0.1.2": ("train_vae", "m1", "vae", "images/s"),
    "PoE / multivae 1.0.3 MVAE": ("train_baseline", "poe", "poe", "tuples/s"),
    "MoE / multivae 1.0.3 MMVAE": ("train_baseline", "moe", "moe", "tuples/s"),
    "MoPoE / multivae 1.0.3 MoPoE": ("train_baseline", "mopoe", "mopoe", "tuples/s"),
    "MVTCAE / multivae 1.0.3 MVTCAE": ("train_baseline", "mvtcae", "mvtcae", "tuples/s"),
}
TURNS = 2
THREADS = workspace.cores()  # of both: one training has the machine to itself


def main():
    command.parser(__doc__).parse_args()
    about = devices.describe(devices.setup(THREADS))
    with tempfile.TemporaryDirectory() as folder:
        workspace.set_params(folder, {**SIZES, "threads": THREADS})
        for stage in ("polymnist", "train_classifiers"):
            workspace.python(folder, f"stages.{stage}")
        rows = [compare(folder, name, *pair) for name, pair in PAIRS.items()]
    workspace.keep("peers", rows, about)


def compare(folder, name, stage, argument, kind, unit):
    """A row of results.json: our stage and the peer, in turns."""
    ours, peers = [], []
    for _ in range(TURNS):
        ours += workspace.measured(folder, "benchmarks.timed", stage, argument)["rates"]
        peers += workspace.measured(folder, "benchmarks.peer", kind)["rates"]
    (rate, spread), (peer, _) = workspace.middle(ours), workspace.middle(peers)
    print(f"{name}: {rate:,.0f} against {peer:,.0f} {unit}, {rate / peer:.2f} times", flush=True)
    return {
        "name": name,
        "ours": rate,
        "spread": spread,
        "peer": peer,
        "ratio": rate / peer,
        "floor_ratio": None,
        "n": len(ours),
        "unit": unit,
        "device": f"{THREADS} CPU threads",
    }


if __name__ == "__main__":
    command.run(main)
