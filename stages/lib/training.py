"""The one training loop: shuffled batches, a learning-rate schedule, history, progress, and a stop at the first NaN."""

import sys

import torch
from tqdm import tqdm

from stages.lib import data, objectives
from stages.lib.runtime import UserError

CHECK_EVERY = 50  # steps between looks at the loss; each look makes a GPU wait


def train(name, parameters, loss, n, *, batch_size, epochs, learning_rate, generator,
          lr_schedule="constant", steps=None, after_epoch=None):
    """Minimise `loss(index, progress) -> (scalar, dict of scalars)` with Adam; returns the history, a dict an epoch.

    index int64 (B,) on the generator's device is a batch of range(n); progress in [0, 1) is the share of training done.
    `steps` instead of `epochs` sets the length in optimiser steps, and history then has about 20 entries.
    `after_epoch()` may return more numbers for an entry. Raises `UserError` at a NaN or infinite loss, naming the step.
    """
    parameters = list(parameters)
    optimiser = torch.optim.Adam(parameters, lr=learning_rate, betas=(0.9, 0.99), fused=True)
    a_pass = max(1, n // min(n, batch_size))  # steps
    total = steps or epochs * a_pass
    entry_every = max(1, total // 20) if steps else a_pass
    history, sums, done = [], {}, 0
    bar = tqdm(total=total, desc=name, unit="step", disable=not sys.stderr.isatty(), dynamic_ncols=True)
    with bar:
        while done < total:
            for index in data.shuffled(n, batch_size, generator):
                progress = done / total
                if lr_schedule == "cosine":
                    for group in optimiser.param_groups:
                        group["lr"] = learning_rate * objectives.cosine(progress)
                value, parts = loss(index, progress)
                optimiser.zero_grad(set_to_none=True)
                value.backward()
                optimiser.step()
                done += 1
                for key, part in {"loss": value, **parts}.items():
                    sums[key] = sums.get(key, 0) + part.detach()
                if done % CHECK_EVERY == 0 or done == total:
                    stop_at_nan(name, sums["loss"], done, learning_rate)
                    bar.update(done - bar.n)
                if done % entry_every == 0 or done == total:
                    since = done - (history[-1]["step"] if history else 0)
                    entry = {"step": done, **{key: float(part) / since for key, part in sums.items()}}
                    stop_at_nan(name, sums["loss"], done, learning_rate)
                    entry.update(after_epoch() if after_epoch else {})
                    history.append(entry)
                    sums = {}
                    line = "  ".join(f"{key} {part:.4g}" for key, part in entry.items() if key != "step")
                    tqdm.write(f"{name}: step {done}/{total}  {line}", file=sys.stderr)
                if done == total:
                    break
    if not all(torch.isfinite(weight).all() for weight in parameters):  # the last step's, which no loss has seen
        stop_at_nan(name, torch.tensor(float("nan")), total, learning_rate)
    return history


def stop_at_nan(name, value, step, learning_rate):
    """Raise `UserError` if the loss summed since the last history entry is not finite."""
    if not torch.isfinite(value):
        raise UserError(f"{name}: the loss is NaN or infinite by step {step}; nothing was written. "
                        f"Try a learning rate below {learning_rate:g}, or look for NaN in the data")
