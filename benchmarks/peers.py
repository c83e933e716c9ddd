"""Our trainers against other programs: the same networks, likelihood, batch, data and threads, in turns, in one run.

    python -m benchmarks.peers        (make bench installs what it compares with)

Sizes are those of DESIGN, section 4: 64 latents, batches of 128, squared error. Each turn is a process of its own.
"""

import argparse
import os
import tempfile

from benchmarks import workspace
from stages.lib import runtime

SIZES = {"polymnist.n_train": 4000, "polymnist.n_test": 1000, "judge.epochs": 1, "judge.feature_epochs": 1, "judge.least_accuracy": 0,
         "vae.epochs": 1, "vae.likelihood": "gaussian", "vae.batch_size": 128, "vae.latent_dim": 64, "baseline.latent_dim": 64}
PAIRS = {  # name: our stage and its argument, the peer's kind, the unit
    "unimodal VAE / PNG files and DataLoader": ("train_vae", "m1", "loop", "images/s"),
    "unimodal VAE / pythae 0.1.2": ("train_vae", "m1", "vae", "images/s"),
    "PoE / multivae 1.0.3 MVAE": ("train_baseline", "poe", "poe", "tuples/s"),
    "MoE / multivae 1.0.3 MMVAE": ("train_baseline", "moe", "moe", "tuples/s"),
    "MoPoE / multivae 1.0.3 MoPoE": ("train_baseline", "mopoe", "mopoe", "tuples/s"),
    "MVTCAE / multivae 1.0.3 MVTCAE": ("train_baseline", "mvtcae", "mvtcae", "tuples/s"),
}
TURNS = 2
THREADS = len(os.sched_getaffinity(0))  # of ours and of the peers: one training has the machine to itself


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.parse_args()
    about = runtime.describe(runtime.setup(THREADS))
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        workspace.set_params(folder, {**SIZES, "threads": THREADS})
        for stage in ("polymnist", "train_judge"):
            workspace.python(folder, f"stages.{stage}")
        for name, (stage, argument, kind, unit) in PAIRS.items():
            rates = {"ours": [], "peer": []}
            for _ in range(TURNS):
                rates["ours"] += workspace.measured(folder, "benchmarks.timed", stage, argument)["rates"]
                rates["peer"] += workspace.measured(folder, "benchmarks.peer", kind)["rates"]
            (ours, spread), (peer, _) = workspace.middle(rates["ours"]), workspace.middle(rates["peer"])
            rows.append({"name": name, "ours": ours, "spread": spread, "peer": peer, "ratio": ours / peer, "floor_ratio": None,
                         "n": len(rates["ours"]), "unit": unit, "device": f"{about['threads']} CPU threads"})
            print(f"{name}: {ours:,.0f} against {peer:,.0f} {unit}, {ours / peer:.2f} times", flush=True)
    workspace.keep(rows, {"peers": about})


if __name__ == "__main__":
    main()
