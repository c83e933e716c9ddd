"""One stage, run as users run it, with its training steps timed; it ends before it writes anything.

    python -m benchmarks.timed train_vae m1

Prints one JSON line: rates (items a second, a number a window), items and floating-point operations a step, parameters,
peak memory. To be started in a folder with params.yaml and the stage's inputs (benchmarks/workspace.py).
"""

import importlib
import json
import resource
import sys
import time

import torch
from torch.utils.flop_counter import FlopCounterMode

from stages.lib import runtime, training

WARM_UP = 20  # steps before the first window
WINDOWS = 7
SECONDS = 1.5  # a window


class Done(Exception):
    """Enough was measured: the stage need not go on."""


def main():
    stage, *arguments = sys.argv[1:]
    module = importlib.import_module(f"stages.{stage}")
    sys.argv = [stage, *arguments]
    time_training(module)


def time_training(module):
    original, found = training.train, {}

    def train(name, model, loss, n, *, batch_size, generator, **options):
        size = min(n, batch_size)
        device = generator.device
        with FlopCounterMode(display=False) as counter:
            loss(torch.arange(size, device=device), 0.5)[0].backward()
        options.update(epochs=None, after_epoch=None)
        run = lambda name, loss, steps: original(name, model, loss, n, batch_size=batch_size, generator=generator,
                                                 **{**options, "steps": steps})
        start = now(device)
        run(f"{name}, warm-up", loss, WARM_UP)
        window = max(5, round(SECONDS / ((now(device) - start) / WARM_UP)))  # steps
        stamps, done = [], 0

        def stamped(index, progress):
            nonlocal done
            if done % window == 0:
                stamps.append(now(device))
            done += 1
            return loss(index, progress)

        run(name, stamped, WINDOWS * window + 1)
        found.update(rates=[window * size / (b - a) for a, b in zip(stamps, stamps[1:])], items=size,
                     flops=counter.get_total_flops(), parameters=sum(w.numel() for w in model.parameters()), peak_mib=peak(device))
        raise Done

    training.train = train
    try:
        module.main()
    except Done:
        print(json.dumps(found))


def now(device):
    """Seconds, once the device has done what it was asked to."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def peak(device):
    """Peak memory in MiB: of the GPU, or of this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    runtime.run(main)
