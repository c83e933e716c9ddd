"""How fast each trainer, sampler and grid is, and how near to what this machine allows.

    python -m benchmarks.throughput        (about 8 minutes on two cores, nothing beside it)

Sizes are those of params.yaml, but for fewer tuples, 2,000 samples a cell and small batches of exact traces; a stage has all
cores to itself.

The floor is a lower bound of the time of a step: its floating-point operations at the rate of one large product, plus Adam's
eight passes over the parameters (gradient written; gradient, weight and both moments read; the last three written) at the
rate of a copy. Rates are measured in the same run, before and after it, and the best counts:

- matrix products in the precision that trainers and samplers use (runtime.matmul_precision: rounded to bfloat16 or TF32 where
  the machine has such products) for everything that is a matrix product, or a large convolution's rate where that is faster;
- float32 for convolutions, which matmul_precision does not touch: a large matrix product or a large convolution of stride 1,
  whichever is faster. A 3x3 convolution of stride 2 with few channels can't reach either: no floor is within reach;
- a copy that fits the caches or one that doesn't, whichever is faster: moments of a small network stay in them.

All else (activations through memory, SiLU, likelihoods, random numbers, the data) counts nothing. A grid's floor leaves out the
eigenvalues of the Frechet distances too. The share of the floor's rate is floor / measured time.
"""

import argparse
import os
import statistics
import tempfile

import torch
from torch.nn import functional as F

from benchmarks import workspace
from benchmarks.timed import GIVEN, now
from stages.lib import runtime

SIZES = {"polymnist.n_train": 4000, "polymnist.n_test": 2500, "judge.epochs": 1, "judge.feature_epochs": 1, "judge.least_accuracy": 0,
         "vae.epochs": 1, "ebm.fit.steps": 100, "annealed.fit.steps": 100, "annealed.fit.contrast_steps": 100, "evaluate.n_samples": 2000}
FEWER = 16  # tuples a batch of exact traces: 256, each with 480 rows of a Jacobian, take 16 GB
FEW = 100  # samples a cell while operations are counted
TRAINERS = [  # name, unit, stage and its arguments, what of params.yaml is otherwise
    ("judge", "images/s", ["train_judge"], {}),
    ("feature net", "images/s", ["train_judge", "--training", "feature net"], {}),
    ("unimodal VAE", "images/s", ["train_vae", "m1"], {}),
    *((f"baseline {method}", "tuples/s", ["train_baseline", method], {}) for method in ("poe", "moe", "mopoe", "mvtcae")),
    *((f"EBM, {model}, {objective}", "tuples/s", ["fit_ebm"], {"ebm.fit.model": model, "ebm.fit.objective": objective})
      for model in ("energy", "score") for objective in ("denoising", "sliced")),
    *((f"EBM, {model}, exact, batches of {FEWER}", "tuples/s", ["fit_ebm"],
       {"ebm.fit.model": model, "ebm.fit.objective": "exact", "ebm.fit.batch_size": FEWER}) for model in ("energy", "score")),
    ("annealed EBM, contrast alone", "tuples/s", ["fit_annealed", "--training", "fit_annealed, contrast"], {}),
    ("annealed EBM", "tuples/s", ["fit_annealed", "--training", "fit_annealed"], {}),
]
SAMPLERS = ("eb_mvae", "eb_mvae_annealed")
GRIDS = ("mopoe", "eb_mvae", "eb_mvae_annealed")
THREADS = len(os.sched_getaffinity(0))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.parse_args()
    device = runtime.setup(THREADS)
    about = runtime.describe(device)
    where = about["device"] if device.type == "cuda" else f"{THREADS} CPU threads"
    before, sizes, measured = ceilings(device), {**SIZES, "threads": THREADS}, []
    with tempfile.TemporaryDirectory() as folder:

        def timed(name, unit, *arguments, **changed):
            workspace.set_params(folder, {**sizes, **changed})
            found = workspace.measured(folder, "benchmarks.timed", *arguments)
            measured.append((name, unit, found))
            print(f"{name}: {found.get('seconds') or workspace.middle(found['rates'])[0]:,.0f} {unit}", flush=True)
            return found

        def run(stage, *arguments):
            workspace.python(folder, f"stages.{stage}", *arguments)

        workspace.set_params(folder, sizes)
        for stage in ("polymnist", "train_judge"):
            run(stage)
        for name in [f"m{k}" for k in range(1, 6)]:
            run("train_vae", name)
        run("encode")
        for name, unit, arguments, changed in TRAINERS:
            timed(name, unit, *arguments, **changed)
        workspace.set_params(folder, sizes)
        for stage in (["fit_ebm"], ["fit_annealed"], ["references"], ["train_baseline", "mopoe"]):
            run(*stage)
        for method in SAMPLERS:
            timed(f"sampler {method}, given {', '.join(GIVEN)}", "samples/s", "evaluate", method, "--measure", "sampler")
        for method in GRIDS:
            found = timed(f"grid {method}, 2,000 samples a cell", "s", "evaluate", method, "--measure", "grid")
            workspace.set_params(folder, {**sizes, "evaluate.n_samples": FEW})
            flops = workspace.measured(folder, "benchmarks.timed", "evaluate", method, "--measure", "flops")["flops"]
            found["flops"] = {kind: count * SIZES["evaluate.n_samples"] / FEW for kind, count in flops.items()}
    after = ceilings(device)
    best = {kind: max(before[kind], after[kind]) for kind in before}
    rows = [row(name, unit, found, best, where) for name, unit, found in measured]
    for each in rows:
        share = f"{each['floor_ratio']:.0%} of the floor's rate"
        print(f"{each['name']}: {workspace.number(each['ours'])} {each['unit']} ± {each['spread']:.0%}, {share}")
    rounded = {f"{kind}_{'gb' if kind == 'copy' else 'gflop'}_per_s": round(rate / 1e9, 1) for kind, rate in best.items()}
    print(f"ceilings: {rounded}")
    workspace.keep(rows, {"throughput": {**about, **rounded}})


def row(name, unit, found, rates, where):
    """A row of results.json from what benchmarks/timed.py found: of a grid its seconds, of all else items a second."""
    rate, spread = workspace.middle(found["rates"])
    if "seconds" in found:
        ours, ratio = found["seconds"], floor(found["flops"], 0, rates) / found["seconds"]
    else:
        ours, ratio = rate, floor(found["flops"], found["parameters"], rates) * rate / found["items"]
    return {"name": name, "ours": ours, "spread": spread, "peer": None, "ratio": None, "floor_ratio": ratio, "n": len(found["rates"]),
            "unit": unit, "peak_mib": found["peak_mib"], "device": where}


def floor(flops, parameters, rates):
    """Seconds that a step takes at least: its operations ({"convolution", "product"}), and Adam's passes over the parameters.

    rates: operations a second of `convolution` and `product`, bytes a second of `copy`.
    """
    return sum(flops[kind] / rates[kind] for kind in flops) + 8 * 4 * parameters / rates["copy"]


def ceilings(device):
    """What this machine does at best, as `floor` wants it, and the two rates of which `convolution` is the faster."""
    n, images, channels, side = (8192, 256, 256, 56) if device.type == "cuda" else (2048, 32, 128, 28)
    a, b = torch.randn(2, n, n, device=device)
    x = torch.randn(images, channels, side, side, device=device).to(memory_format=torch.channels_last)
    weight = torch.randn(channels, channels, 3, 3, device=device).to(memory_format=torch.channels_last)
    product = 2 * n**3 / seconds(lambda: a @ b, device)
    convolution = 2 * images * side**2 * channels**2 * 9 / seconds(lambda: F.conv2d(x, weight, padding=1), device)
    with runtime.matmul_precision(device, "bf16"):
        fast = 2 * n**3 / seconds(lambda: a @ b, device)
    copies = []
    for size in (2**22, 2**28):  # bytes; the smaller fits the second-level caches of two cores or a GPU's
        source = torch.zeros(size // 4, device=device)
        target = torch.empty_like(source)
        copies.append(2 * size / seconds(lambda: target.copy_(source), device))
    return {"product": max(fast, product, convolution), "convolution": max(product, convolution), "float32_product": product, "large_convolution": convolution,
            "copy": max(copies)}


def seconds(work, device):
    """Median of seven, after two that warm up; each of them long enough for the clock."""
    times, repeats = [], 1
    for _ in range(9):
        start = now(device)
        for _ in range(repeats):
            work()
        times.append((now(device) - start) / repeats)
        repeats = max(1, round(0.02 / times[-1]))
    return statistics.median(times[2:])


if __name__ == "__main__":
    main()
