"""How fast each trainer, sampler and grid is, and how near to what this machine allows.

    python -m benchmarks.throughput        (about 8 minutes on two cores, nothing beside it)

Sizes are those of params.yaml, but for fewer tuples, 2,000 samples per cell and small batches of
exact traces; a stage has all cores to itself.

The floor is a lower bound of the time of a step: its floating-point operations at the rate of one
large product, plus Adam's eight passes over the parameters at the rate of a copy. (Gradient
written; gradient, weight and both moments read; the last three written.) Rates are measured in the
same run, before and after it, and the best counts:

- matrix products in bf16 or TF32, where the machine has such products, for everything that is a
  matrix product, or a large convolution's rate where that is faster;
- float32 for convolutions, which matmul_precision does not touch: a large matrix product or a large
  convolution of stride 1, whichever is faster. A 3x3 convolution of stride 2 with few channels
  can't reach either: no floor is within reach;
- a copy that fits the caches or one that doesn't, whichever is faster: moments of a small network
  stay in them.

All else (activations through memory, SiLU, likelihoods, random numbers, the data) counts nothing. A
grid's floor leaves out the eigenvalues of the Fréchet distances too. The share of the floor's rate
is floor / measured time.
"""

import statistics
import tempfile

import torch
from torch.nn import functional as F

from benchmarks import workspace
from benchmarks.timed import GIVEN, now
from ebmvae import command
from ebmvae.core import devices
from ebmvae.methods import BASELINES, ENERGIES

SIZES = {
    "polymnist.n_train": 4000,
    "polymnist.n_test": 2500,
    "classifier.epochs": 1,
    "classifier.feature_epochs": 1,
    "classifier.min_accuracy": 0,
    "vae.epochs": 1,
    "ebm.fit.steps": 100,
    "annealed.fit.steps": 100,
    "annealed.fit.infonce_steps": 100,
    "evaluate.n_samples": 2000,
}
FEWER = 16  # tuples of exact traces in a batch: 256, with 480 rows of a Jacobian each, take 16 GB
FEW = 100  # samples per cell while operations are counted
GRIDS = ("mopoe", *ENERGIES)
THREADS = workspace.cores()


def trainers():
    """(name, unit, stage and its arguments, changes to the parameters) of every training."""
    rows = [
        ("classifier", "images/s", ["train_classifiers"], {}),
        (
            "feature net",
            "images/s",
            ["train_classifiers", "--training", "train_classifiers features"],
            {},
        ),
        ("unimodal VAE", "images/s", ["train_vae", "m1"], {}),
    ]
    rows += [(f"baseline {m}", "tuples/s", ["train_baseline", m], {}) for m in BASELINES]
    for objective in ("denoising", "sliced", "exact"):
        for model in ("energy", "score"):
            changes = {"ebm.fit.model": model, "ebm.fit.objective": objective}
            name = f"EBM, {model}, {objective}"
            if objective == "exact":
                changes["ebm.fit.batch_size"] = FEWER
                name += f", batches of {FEWER}"
            rows.append((name, "tuples/s", ["fit_ebm"], changes))
    trainings = {"annealed EBM, InfoNCE alone": "fit_annealed infonce"}
    trainings["annealed EBM"] = "fit_annealed"
    for name, training in trainings.items():
        rows.append((name, "tuples/s", ["fit_annealed", "--training", training], {}))
    return rows


def main():
    command.parser(__doc__).parse_args()
    device = devices.setup(THREADS)
    about = devices.describe(device, "bf16")
    where = about["device"] if device.type == "cuda" else f"{THREADS} CPU threads"
    before = ceilings(device)
    with tempfile.TemporaryDirectory() as folder:
        measured = measure(folder)
    after = ceilings(device)
    best = {kind: max(before[kind], after[kind]) for kind in before}
    rows = [row(name, unit, cost, best, where) for name, unit, cost in measured]
    for line in rows:
        share = f"{line['floor_ratio']:.0%} of the floor's rate"
        rate = f"{workspace.number(line['ours'])} {line['unit']}"
        print(f"{line['name']}: {rate} ± {line['spread']:.0%}, {share}")
    rounded = {
        f"{kind}_{'gb' if kind == 'copy' else 'gflop'}_per_s": round(rate / 1e9, 1)
        for kind, rate in best.items()
    }
    print(f"ceilings: {rounded}")
    workspace.keep("throughput", rows, {**about, **rounded})


def measure(folder):
    """(name, unit, what benchmarks/timed.py printed) of every trainer, sampler and grid."""
    sizes, measured = {**SIZES, "threads": THREADS}, []

    def timed(name, unit, *arguments, **changes):
        workspace.set_params(folder, {**sizes, **changes})
        cost = workspace.measured(folder, "benchmarks.timed", *arguments)
        measured.append((name, unit, cost))
        rate = cost.get("seconds") or workspace.middle(cost["rates"])[0]
        print(f"{name}: {rate:,.0f} {unit}", flush=True)
        return cost

    def run(*stages):
        workspace.set_params(folder, sizes)
        for stage, *arguments in stages:
            workspace.python(folder, f"stages.{stage}", *arguments)

    vaes = [("train_vae", f"m{k}") for k in range(1, 6)]
    run(("polymnist",), ("train_classifiers",), *vaes, ("encode",))
    for name, unit, arguments, changes in trainers():
        timed(name, unit, *arguments, **changes)
    run(("fit_ebm",), ("fit_annealed",), ("references",), ("train_baseline", "mopoe"))
    for method in ENERGIES:
        name = f"sampler {method}, given {', '.join(GIVEN)}"
        timed(name, "samples/s", "evaluate", method, "--measure", "sampler")
    for method in GRIDS:
        arguments = ("evaluate", method, "--measure")
        cost = timed(f"grid {method}, 2,000 samples a cell", "s", *arguments, "grid")
        workspace.set_params(folder, {**sizes, "evaluate.n_samples": FEW})
        flops = workspace.measured(folder, "benchmarks.timed", *arguments, "flops")["flops"]
        more = SIZES["evaluate.n_samples"] / FEW
        cost["flops"] = {kind: count * more for kind, count in flops.items()}
    return measured


def row(name, unit, cost, rates, where):
    """A row of results.json from what benchmarks/timed.py printed.

    Of a grid its seconds, of all else items a second.
    """
    rate, spread = workspace.middle(cost["rates"])
    if "seconds" in cost:
        ours, ratio = cost["seconds"], floor(cost["flops"], 0, rates) / cost["seconds"]
    else:
        least = floor(cost["flops"], cost["parameters"], rates)
        ours, ratio = rate, least * rate / cost["items"]
    return {
        "name": name,
        "ours": ours,
        "spread": spread,
        "peer": None,
        "ratio": None,
        "floor_ratio": ratio,
        "n": len(cost["rates"]),
        "unit": unit,
        "peak_mib": cost["peak_mib"],
        "device": where,
    }


def floor(flops, parameters, rates):
    """Seconds that a step takes at least: its operations, and Adam's passes over the parameters.

    flops: {"convolution", "product"}; rates: operations a second of both, bytes a second of `copy`.
    """
    return sum(flops[kind] / rates[kind] for kind in flops) + 8 * 4 * parameters / rates["copy"]


def ceilings(device):
    """What this machine does at best, as `floor` takes it.

    And the two rates of which that of convolutions is the faster.
    """
    on_cuda = device.type == "cuda"
    n, images, channels, side = (8192, 256, 256, 56) if on_cuda else (2048, 32, 128, 28)
    a, b = torch.randn(2, n, n, device=device)
    x = torch.randn(images, channels, side, side, device=device)
    weight = torch.randn(channels, channels, 3, 3, device=device)
    x, weight = (part.to(memory_format=torch.channels_last) for part in (x, weight))
    product = 2 * n**3 / seconds(lambda: a @ b, device)
    flops = 2 * images * side**2 * channels**2 * 9
    convolution = flops / seconds(lambda: F.conv2d(x, weight, padding=1), device)
    with devices.matmul_precision(device, "bf16"):
        fast = 2 * n**3 / seconds(lambda: a @ b, device)
    return {
        "product": max(fast, product, convolution),
        "convolution": max(product, convolution),
        "float32_product": product,
        "large_convolution": convolution,
        # In bytes; the smaller fits the second-level caches of two cores or a GPU's.
        "copy": max(copy_rate(size, device) for size in (2**22, 2**28)),
    }


def copy_rate(size, device):
    """Bytes a second, read and written, of copying `size` bytes."""
    source = torch.zeros(size // 4, device=device)
    target = torch.empty_like(source)
    return 2 * size / seconds(lambda: target.copy_(source), device)


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
    command.run(main)
