"""One stage, run as users run it, and timed: its training steps, its sampler, its grid, or all.

    python -m benchmarks.timed train_vae m1
    python -m benchmarks.timed fit_annealed --training "fit_annealed infonce"
    python -m benchmarks.timed evaluate eb_mvae --measure sampler

Prints one JSON line. steps, sampler: rates (items a second, a number per window), items and
floating-point operations of a step, parameters, peak memory; a stage of which only these are
measured ends before it writes anything. whole, grid: seconds of the stage without loading Python
and torch, and peak memory. flops: the operations of the whole stage. To be started in a folder with
params.yaml and the stage's inputs (benchmarks/workspace.py).
"""

import importlib
import itertools
import json
import resource
import sys
import time
from dataclasses import replace
from pathlib import Path

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from ebmvae import command, params
from ebmvae.core import checkpoints, devices, training
from ebmvae.data import splits
from ebmvae.evaluation import grid

WARM_UP = 20  # steps before the first window, or fewer where they would take longer than a window
WINDOWS = 7
SECONDS = 1.0  # a window
GIVEN = ("m1",)  # what a sampler is given; it draws all else


class Operations(TorchDispatchMode):
    """Counts floating-point operations of convolutions and of matrix products, in `counts`.

    By torch's own formulas. Its FlopCounterMode would do, but for its attribution to modules, whose
    hooks fail where a loss takes gradients.
    """

    def __init__(self):
        super().__init__()
        self.counts = {"convolution": 0, "product": 0}

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        formula = flop_registry.get(function.overloadpacket)
        if formula is None:
            with self:  # inference mode hands down whole layers, of which only parts have formulas
                result = function.decompose(*args, **kwargs)
            return function(*args, **kwargs) if result is NotImplemented else result
        result = function(*args, **kwargs)
        kind = "convolution" if "convolution" in str(function) else "product"
        self.counts[kind] += formula(*args, **kwargs, out_val=result)
        return result


class Done(Exception):
    """Enough was measured: the stage need not go on."""


def main():
    parser = command.parser(__doc__)
    add = parser.add_argument
    add("stage")
    add("argument", nargs="*")
    add("--training", help="the training to time, of a stage with several; without it the first")
    add("--measure", choices=MEASURES, default="steps")
    add("--memory", type=float, help="GiB that this process may hold: beyond, it fails")
    args = parser.parse_args()
    if args.memory:
        resource.setrlimit(resource.RLIMIT_DATA, [int(args.memory * 2**30)] * 2)
    module = importlib.import_module(f"stages.{args.stage}")
    sys.argv = [args.stage, *args.argument]  # for the stage's own parser
    print(json.dumps(MEASURES[args.measure](module, args)))


def time_steps(module, args):
    """The steps of one training of a stage, the others being cut short."""
    measured = {}

    def train(name, model, loss, n, settings, generator, content, after_epoch=None):
        def run(name, loss, steps):
            shorter = replace(settings, epochs=None, steps=steps)
            return training.train(name, model, loss, n, shorter, generator, content)

        if args.training not in (None, name):
            return run(name, loss, 1)
        measured.update(measure_training(name, model, loss, n, settings, generator, run))
        raise Done

    checkpoints.clear(args.stage)  # steps that are not run can't be timed
    try:
        module.run(*args.argument, params.load(), train=train)
    except Done:
        pass
    finally:
        checkpoints.clear(args.stage)  # nor must the stage itself go on from them
    return measured


def measure_training(name, model, loss, n, settings, generator, run):
    """Rates and operations of a training; run(name, loss, steps) trains for some steps."""
    size, device = min(n, settings.batch_size), generator.device
    with Operations() as operations:
        loss(torch.arange(size, device=device), 0.5)[0].backward()
    window = 2  # steps
    for phase in ("first", "warm"):
        steps, start = min(window, WARM_UP), now(device)
        run(f"{name} {phase}", loss, steps)
        window = max(1, round(SECONDS * steps / (now(device) - start)))
    stamps, done = [], 0

    def stamped(index, progress):
        nonlocal done
        if done % window == 0:
            stamps.append(now(device))
        done += 1
        return loss(index, progress)

    run(name, stamped, WINDOWS * window + 1)
    return {
        "rates": [window * size / (b - a) for a, b in itertools.pairwise(stamps)],
        "items": size,
        "flops": operations.counts,
        "parameters": sum(weight.numel() for weight in model.parameters()),
        "peak_mib": peak(device),
    }


def time_sampler(module, args):
    """The sampler of an energy alone: all other modalities given those in GIVEN.

    It draws a batch of the grid's at once.
    """
    (method,), p = args.argument, params.load()
    device = devices.setup(p.threads)
    test = splits.load_split("test", device)
    index = grid.test_tuples(p, len(test), device)
    sampler = module.energy_sampler(method, p, test, index, device)
    seeds = list(range(p.evaluate.batch_size))

    def draw():
        sampler.draw(GIVEN, seeds, slice(0, len(seeds)))

    with Operations() as operations:
        draw()
    draw()
    rates = []
    for _ in range(WINDOWS):
        draws, start = 0, now(device)
        while draws == 0 or now(device) - start < SECONDS:
            draw()
            draws += 1
        rates.append(draws * len(seeds) / (now(device) - start))
    measured = {"rates": rates, "items": len(seeds), "flops": operations.counts, "parameters": 0}
    return {**measured, "peak_mib": peak(device)}


def time_whole(module, args):
    """Seconds of the stage, as `dvc repro` runs it."""
    return timed(module.main)


def time_grid(module, args):
    """The whole grid, and a rate per subset but the first, in measured samples a second."""
    (method,), stamps, counts = args.argument, [], []

    def callback(subset, n_images):
        stamps.append(time.perf_counter())
        counts.append(n_images)

    measured = timed(lambda: module.evaluate(method, params.load(), callback))
    times = [b - a for a, b in itertools.pairwise(stamps)]
    rates = [count / seconds for count, seconds in zip(counts[1:], times, strict=True)]
    return {**measured, "rates": rates}


def count_operations(module, args):
    with Operations() as operations:
        module.main()
    return {"flops": operations.counts}


MEASURES = {
    "steps": time_steps,
    "sampler": time_sampler,
    "grid": time_grid,
    "whole": time_whole,
    "flops": count_operations,
}


def timed(work):
    """Seconds that a call takes, and peak memory."""
    start = time.perf_counter()
    work()
    device = torch.device("cuda" if torch.cuda.is_initialized() else "cpu")
    return {"seconds": now(device) - start, "peak_mib": peak(device)}


def now(device):
    """Seconds, once the device has done all of its work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def peak(device):
    """Peak memory in MiB, of the GPU or of this process.

    getrusage's would be that of the process that started this one, if larger.
    """
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    lines = Path("/proc/self/status").read_text().splitlines()
    status = dict(line.split(":", 1) for line in lines)
    return int(status["VmHWM"].split()[0]) / 1024


if __name__ == "__main__":
    command.run(main)
