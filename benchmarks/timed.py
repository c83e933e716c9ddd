"""One stage, run as users run it, and timed: its training steps, its sampler, its grid, or all of it.

    python -m benchmarks.timed train_vae m1
    python -m benchmarks.timed fit_annealed --training "fit_annealed, contrast"
    python -m benchmarks.timed evaluate eb_mvae --measure sampler

Prints one JSON line. steps, sampler: rates (items a second, a number a window), items and floating-point operations a step,
parameters, peak memory; a stage of which only these are measured ends before it writes anything. whole, grid: seconds of the
stage without loading Python and torch, and peak memory. flops: the operations of the whole stage. To be started in a folder
with params.yaml and the stage's inputs (benchmarks/workspace.py).
"""

import argparse
import importlib
import json
import resource
import sys
import time
from pathlib import Path

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from stages.lib import runtime, training

WARM_UP = 20  # steps before the first window, or fewer where they would take longer than a window
WINDOWS = 7
SECONDS = 1.0  # a window
GIVEN = ("m1",)  # what a sampler is given; it draws all else


class Operations(TorchDispatchMode):
    """Counts floating-point operations: of convolutions, and of matrix products, in `found`; by torch's own formulas.

    torch's FlopCounterMode would do, but for its attribution to modules, whose hooks fail where a loss takes gradients.
    """

    def __init__(self):
        super().__init__()
        self.found = {"convolution": 0, "product": 0}

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        formula = flop_registry.get(function.overloadpacket)
        if formula is None:
            with self:  # inference mode hands down whole layers, of which only the parts have formulas
                result = function.decompose(*args, **kwargs)
            return function(*args, **kwargs) if result is NotImplemented else result
        result = function(*args, **kwargs)
        self.found["convolution" if "convolution" in str(function) else "product"] += formula(*args, **kwargs, out_val=result)
        return result


class Done(Exception):
    """Enough was measured: the stage need not go on."""


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stage")
    parser.add_argument("argument", nargs="*")
    parser.add_argument("--training", help="the training to time, of a stage that has several; without it the first")
    parser.add_argument("--measure", choices=MEASURES, default="steps")
    parser.add_argument("--memory", type=float, help="GiB of data this process may hold: beyond, it fails instead of the machine")
    arguments = parser.parse_args()
    if arguments.memory:
        resource.setrlimit(resource.RLIMIT_DATA, [int(arguments.memory * 2**30)] * 2)
    module = importlib.import_module(f"stages.{arguments.stage}")
    sys.argv = [arguments.stage, *arguments.argument]
    found = {}
    try:
        MEASURES[arguments.measure](module, found, arguments.training)
    except Done:
        pass
    print(json.dumps(found))


def time_steps(module, found, chosen):
    """The steps of the stage's training named `chosen`, the others being cut short."""
    original = training.train

    def train(name, model, loss, n, *, batch_size, generator, **options):
        options.update(epochs=None, after_epoch=None)
        run = lambda name, loss, steps: original(name, model, loss, n, batch_size=batch_size, generator=generator,
                                                 **{**options, "steps": steps})
        if chosen not in (None, name):
            return run(name, loss, 1)
        size = min(n, batch_size)
        device = generator.device
        with Operations() as counted:
            loss(torch.arange(size, device=device), 0.5)[0].backward()
        window = 2  # steps
        for what in ("first steps", "warm-up"):
            steps, start = min(window, WARM_UP), now(device)
            run(f"{name}, {what}", loss, steps)
            window = max(1, round(SECONDS * steps / (now(device) - start)))
        stamps, done = [], 0

        def stamped(index, progress):
            nonlocal done
            if done % window == 0:
                stamps.append(now(device))
            done += 1
            return loss(index, progress)

        run(name, stamped, WINDOWS * window + 1)
        found.update(rates=[window * size / (b - a) for a, b in zip(stamps, stamps[1:])], items=size, flops=counted.found,
                     parameters=sum(w.numel() for w in model.parameters()), peak_mib=peak(device))
        raise Done

    training.train = train
    module.main()


def time_sampler(module, found, _):
    """The sampler of an energy alone: latents of all other modalities given those in GIVEN, a batch of the grid's at once."""
    original = module.energy_based

    def energy_based(method, p, test, index, device):
        latents, *_ = original(method, p, test, index, device)
        seeds = list(range(p.evaluate.batch_size))
        draw = lambda: latents(GIVEN, seeds, slice(0, len(seeds)))
        with Operations() as counted:
            draw()
        draw()
        stamps = [now(device)]
        while len(stamps) <= WINDOWS:
            draws = 0
            while draws == 0 or now(device) - stamps[-1] < SECONDS:
                draw()
                draws += 1
            stamps.append(now(device))
            found.setdefault("rates", []).append(draws * len(seeds) / (stamps[-1] - stamps[-2]))
        found.update(items=len(seeds), flops=counted.found, parameters=0, peak_mib=peak(device))
        raise Done

    module.energy_based = energy_based
    module.main()


def time_whole(module, found, _):
    start = time.perf_counter()
    module.main()
    device = torch.device("cuda" if torch.cuda.is_initialized() else "cpu")
    found.update(seconds=now(device) - start, peak_mib=peak(device))


def time_grid(module, found, _):
    """The whole grid; and a rate a subset of it, in judged samples a second."""
    stamps, images = [], []
    rows_of = module.tqdm

    def subsets(cells, *options, **more):
        for subset in rows_of(cells, *options, **more):
            stamps.append(time.perf_counter())
            images.append(0)
            yield subset
        stamps.append(time.perf_counter())

    judge = module.evaluation.judge_and_extract

    def counted(images_of, n, *rest):
        images[-1] += n
        return judge(images_of, n, *rest)

    module.tqdm, module.evaluation.judge_and_extract = subsets, counted
    time_whole(module, found, None)
    found.update(rates=[n / (b - a) for n, a, b in zip(images, stamps, stamps[1:])], images=sum(images))


def count_operations(module, found, _):
    with Operations() as counted:
        module.main()
    found["flops"] = counted.found


MEASURES = {"steps": time_steps, "sampler": time_sampler, "grid": time_grid, "whole": time_whole, "flops": count_operations}


def now(device):
    """Seconds, once the device has done what it was asked to."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def peak(device):
    """Peak memory in MiB: of the GPU, or of this process; getrusage's would be that of the process that started it, if larger."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(status["VmHWM"].split()[0]) / 1024


if __name__ == "__main__":
    runtime.run(main)
