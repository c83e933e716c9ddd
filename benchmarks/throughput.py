"""How fast each trainer, sampler and grid is, and how near to what this machine allows.

    python -m benchmarks.throughput

The floor of a training step is the time of its products at the rate of one large matrix product, plus that of Adam's eight
passes over the parameters (gradient written; gradient, weight and both moments read; the last three written) at the rate
of one large copy, both measured in the same run. Results go to benchmarks/results.json and the table in README.md.
"""

import argparse
import statistics
import tempfile
import time

import torch

from benchmarks import workspace
from stages.lib import runtime

SIZES = {"polymnist.n_train": 4000, "polymnist.n_test": 2500, "judge.epochs": 1, "judge.feature_epochs": 1,
         "judge.least_accuracy": 0, "vae.epochs": 1, "ebm.fit.steps": 100, "annealed.fit.steps": 100,
         "evaluate.n_samples": 2000}
MODALITIES = ("m1", "m2", "m3", "m4", "m5")
BASELINES = ("poe", "moe", "mopoe", "mvtcae")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--grid", action="store_true", help="also the grids at 2,000 samples a cell (minutes each)")
    arguments = parser.parse_args()
    device = runtime.setup()
    about = runtime.describe(device)
    where = about["device"] if device.type == "cuda" else f"{about['threads']} CPU threads"
    product, copy = ceilings(device)
    print(f"ceilings: matrix product {product / 1e9:,.0f} GFLOP/s, copy {copy / 1e9:.1f} GB/s", flush=True)
    rows = []

    def note(name, unit, found):
        rate, spread = workspace.middle(found["rates"])
        floor = found["flops"] / product + 32 * found["parameters"] / copy  # seconds a step
        rows.append({"name": name, "ours": rate, "spread": spread, "peer": None, "ratio": None,
                     "floor_ratio": rate * floor / found["items"], "n": len(found["rates"]), "unit": unit,
                     "peak_mib": found["peak_mib"], "device": where})
        print(f"{name}: {rate:,.0f} {unit} ± {spread:.0%}, {rows[-1]['floor_ratio']:.0%} of the floor's rate", flush=True)

    with tempfile.TemporaryDirectory() as folder:
        workspace.set_params(folder, SIZES)
        for stage in ("polymnist", "train_judge"):
            workspace.python(folder, f"stages.{stage}")
        note("judge", "images/s", workspace.measured(folder, "benchmarks.timed", "train_judge"))
        note("unimodal VAE", "images/s", workspace.measured(folder, "benchmarks.timed", "train_vae", "m1"))
        for method in BASELINES:
            note(f"baseline {method}", "tuples/s", workspace.measured(folder, "benchmarks.timed", "train_baseline", method))
        for name in MODALITIES:
            workspace.python(folder, "stages.train_vae", name)
        workspace.python(folder, "stages.encode")
        for model, objective in (("energy", "denoising"), ("energy", "sliced"), ("score", "sliced"), ("score", "exact")):
            workspace.set_params(folder, {**SIZES, "ebm.fit.model": model, "ebm.fit.objective": objective})
            note(f"EBM, {model}, {objective}", "tuples/s", workspace.measured(folder, "benchmarks.timed", "fit_ebm"))
        workspace.set_params(folder, SIZES)
        note("EBM, annealed", "tuples/s", workspace.measured(folder, "benchmarks.timed", "fit_annealed"))
        for stage in ("fit_ebm", "fit_annealed", "references"):
            workspace.python(folder, f"stages.{stage}")
        for method in ("eb_mvae", "eb_mvae_annealed"):
            workspace.set_params(folder, {**SIZES, "evaluate.n_samples": 500})
            workspace.python(folder, "stages.references")
            found = workspace.measured(folder, "benchmarks.timed", "evaluate", method, "sampler")
            found = {**found, "rates": found["sampler_rates"], "flops": found["sampler_flops"], "items": 500, "parameters": 0}
            note(f"sampler {method}", "samples/s", found)
        if arguments.grid:
            workspace.set_params(folder, SIZES)
            workspace.python(folder, "stages.references")
            workspace.python(folder, "stages.train_baseline", "mopoe")
            for method in ("mopoe", "eb_mvae", "eb_mvae_annealed"):
                found = workspace.measured(folder, "benchmarks.timed", "evaluate", method)
                _, spread = workspace.middle(found["cells"])
                rows.append({"name": f"grid {method}, 2,000 samples a cell", "ours": found["seconds"], "spread": spread,
                             "peer": None, "ratio": None, "floor_ratio": None, "n": len(found["cells"]), "unit": "s",
                             "peak_mib": found["peak_mib"], "device": where})
                print(f"{rows[-1]['name']}: {found['seconds']:.0f} s", flush=True)
    workspace.keep(rows, {"throughput": {**about, "product_gflops": round(product / 1e9), "copy_gb_per_s": round(copy / 1e9, 1)}})


def ceilings(device):
    """Rates of a large matrix product (FLOP/s) and of a large copy (bytes read and written a second): medians of 7."""
    n, size = (8192 if device.type == "cuda" else 2048), 2**28
    a, b = torch.randn(2, n, n, device=device)
    source = torch.zeros(size // 4, device=device)
    target = torch.empty_like(source)

    def seconds(work):
        times = []
        for _ in range(9):
            start = now(device)
            work()
            times.append(now(device) - start)
        return statistics.median(times[2:])

    return 2 * n**3 / seconds(lambda: a @ b), 2 * size / seconds(lambda: target.copy_(source))


def now(device):
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


if __name__ == "__main__":
    main()
