"""The one training loop: shuffled batches, a learning-rate schedule, history, checkpoints.

It stops at the first NaN, and at SIGINT or SIGTERM after a last checkpoint.
"""

import contextlib
import math
import signal
import threading
import time
from dataclasses import dataclass, field

import torch
from tqdm import tqdm

from ebmvae.core import checkpoints, devices
from ebmvae.core.messages import Stopped, UserError, say, seconds

CHECK_EVERY = 50  # steps between looks at the loss; each look makes a GPU wait


@dataclass(frozen=True)
class Settings:
    """How a training goes. `steps` in the place of `epochs` gives its length in optimiser steps."""

    batch_size: int
    learning_rate: float
    epochs: int | None = None
    steps: int | None = None
    lr_schedule: str = "constant"  # or cosine
    weight_decay: float = 0.0
    betas: tuple[float, float] = (0.9, 0.99)  # Adam's
    precision: str = "ieee"  # of matrix products: ieee or bf16


def train(name, model, loss, n, settings, generator, params, after_epoch=None):
    """Minimise `loss(index, progress)` with AdamW; returns the history, a list of dicts.

    loss returns a scalar and a dict of scalars, its parts. name: of its checkpoint; begins with the
    stage's. model: the module whose parameters are trained. index: int64 (B,) on the generator's
    device, a batch of range(n), each item once per epoch but for the ragged end; progress: the
    share of training done, in [0, 1). params: all parameters, JSON-able: a checkpoint of others is
    not resumed. after_epoch() returns more numbers for an entry of the history: one entry per
    epoch, or about 20 where `steps` are given.

    Raises `UserError` at a NaN or infinite loss, naming the step. A training that was stopped or
    killed goes on from its checkpoint and gives the same bytes as one that was not.
    """
    device, size, rate = generator.device, min(n, settings.batch_size), settings.learning_rate
    epoch = max(1, n // size)  # steps
    total = settings.steps or settings.epochs * epoch
    entry_every = max(1, total // 20) if settings.steps else epoch
    optimiser = _adam(model, settings)
    mark = checkpoints.fingerprint(params, device, settings.precision)
    interval, saved = seconds("CHECKPOINT_SECONDS"), time.monotonic()
    bar = tqdm(total=total, desc=name, unit="step", disable=None)  # None: on a terminal only
    products = devices.matmul_precision(device, settings.precision)
    with bar, products, _deferred_signals() as signals:
        run = _resumed(name, mark, total, model, optimiser, generator)
        bar.initial = bar.n = run.done  # its rate is of what is done now
        while run.done < total:
            progress = run.done / total
            index = _next_batch(run, n, size, generator)
            if settings.lr_schedule == "cosine":
                optimiser.param_groups[0]["lr"] = rate * cosine(progress)
            _step(run, optimiser, *loss(index, progress))
            bar.update()
            if run.done % CHECK_EVERY == 0 or run.done == total:
                stop_at_nan(name, run.sums["loss"], run.done, rate)
            if run.done % entry_every == 0 or run.done == total:
                _add_entry(run, name, total, rate, after_epoch)
            if signals or run.done == total or time.monotonic() - saved > interval:
                _look_at_weights(run, name, model, optimiser, rate)
                checkpoints.save(name, mark, *state(run, model, optimiser, generator))
                saved = time.monotonic()
            if signals:
                say(f"{name}: stopped at step {run.done} of {total}; started again, it goes on")
                raise Stopped(signals[0])
    return run.history


@dataclass
class Run:
    """How far a training is."""

    done: int = 0  # optimiser steps
    order: torch.Tensor | None = None  # of the items in this epoch
    history: list = field(default_factory=list)
    sums: dict = field(default_factory=dict)  # of the loss and its parts since the last entry


def _adam(model, settings):
    weights, decay = list(model.parameters()), settings.weight_decay
    options = dict(betas=settings.betas, weight_decay=decay, fused=True)
    return torch.optim.AdamW(weights, settings.learning_rate, **options)


@contextlib.contextmanager
def _deferred_signals():
    """Inside, SIGINT and SIGTERM only add their number to the list that this yields.

    A second signal ends the process at once, as it would without this.
    """
    arrived, handlers = [], {}

    def note(signum, frame):
        signal.signal(signum, signal.SIG_DFL)
        arrived.append(signum)

    if threading.current_thread() is threading.main_thread():  # elsewhere signals don't arrive
        handlers = {s: signal.signal(s, note) for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield arrived
    finally:
        for signum, handler in handlers.items():
            signal.signal(signum, handler)
    if arrived:  # it came after the last step
        raise Stopped(arrived[0])


def _resumed(name, mark, total, model, optimiser, generator):
    """The `Run` of the checkpoint, its state put back; a new one without."""
    kept = checkpoints.load(name, mark)
    if not kept:
        return Run()
    run = restore(*kept, model, optimiser, generator)
    say(f"{name}: going on from step {run.done} of {total}")
    return run


def _step(run, optimiser, value, parts):
    """One step down the gradient of the loss `value`; its parts are summed until the next entry."""
    optimiser.zero_grad(set_to_none=True)
    value.backward()
    optimiser.step()
    run.done += 1
    for key, part in {"loss": value, **parts}.items():
        run.sums[key] = run.sums.get(key, 0) + part.detach()


def _next_batch(run, n, size, generator):
    """Indices (size,) of the next batch; at the beginning of an epoch in a new order."""
    start = run.done % max(1, n // size) * size
    if start == 0:
        run.order = torch.randperm(n, generator=generator, device=generator.device)
    return run.order[start : start + size]


def _add_entry(run, name, total, learning_rate, after_epoch):
    """Means since the last entry, and what `after_epoch` measures, into the history."""
    steps = run.done - (run.history[-1]["step"] if run.history else 0)
    entry = {"step": run.done, **{key: float(part) / steps for key, part in run.sums.items()}}
    stop_at_nan(name, run.sums["loss"], run.done, learning_rate)
    entry.update(after_epoch() if after_epoch else {})
    if not all(map(math.isfinite, entry.values())):
        stop_at_nan(name, torch.tensor(torch.nan), run.done, learning_rate)
    run.history.append(entry)
    run.sums = {}
    numbers = "  ".join(f"{key} {value:.4g}" for key, value in entry.items() if key != "step")
    say(f"{name}: step {run.done}/{total}  {numbers}")


def _look_at_weights(run, name, model, optimiser, learning_rate):
    """Raise `UserError` where the last step, which no loss has seen, made a weight NaN or infinite.

    A squared gradient too large for float32 freezes its weight, and shows only in Adam's moments.
    """
    total = sum(weight.detach().sum() for weight in model.parameters())
    total = total + sum(moments["exp_avg_sq"].sum() for moments in optimiser.state.values())
    stop_at_nan(name, total + run.sums.get("loss", 0), run.done, learning_rate)


def state(run, model, optimiser, generator):
    """All that the next step follows from, as (tensors, about) for `checkpoints.save`."""
    tensors = {f"model/{key}": value for key, value in model.state_dict().items()}
    for i, moments in optimiser.state_dict()["state"].items():
        tensors.update({f"adam/{i}/{key}": value for key, value in moments.items()})
    tensors.update({f"sum/{key}": value for key, value in run.sums.items()})
    # Dropout draws from torch's global generators; everything else from this one.
    tensors.update(order=run.order, generator=generator.get_state(), cpu=torch.get_rng_state())
    if generator.device.type == "cuda":
        tensors["cuda"] = torch.cuda.get_rng_state(generator.device)
    return tensors, {"done": run.done, "history": run.history, "sums": list(run.sums)}


@torch.no_grad()
def restore(tensors, about, model, optimiser, generator):
    """Put back what `state` kept; returns the `Run`."""
    device = generator.device
    parts = {"model": {}, "adam": {}, "sum": {}}
    for key, value in tensors.items():
        family, _, rest = key.partition("/")
        if rest:
            parts[family][rest] = value.to(device)
    model.load_state_dict(parts["model"])
    moments = {}
    for key, value in parts["adam"].items():
        i, _, kind = key.partition("/")
        parameter = optimiser.param_groups[0]["params"][int(i)]
        # Fused Adam goes through memory, so moments lie as their weights do (channels_last).
        if value.shape == parameter.shape:
            value = torch.empty_like(parameter).copy_(value)
        moments.setdefault(int(i), {})[kind] = value
    optimiser.load_state_dict({**optimiser.state_dict(), "state": moments})
    generator.set_state(tensors["generator"])
    torch.set_rng_state(tensors["cpu"])
    if "cuda" in tensors:
        torch.cuda.set_rng_state(tensors["cuda"], device)
    sums = {key: parts["sum"][key] for key in about["sums"]}
    return Run(about["done"], tensors["order"].to(device), about["history"], sums)


def stop_at_nan(name, value, step, learning_rate):
    """Raise `UserError` if `value`, a sum over what must be finite, is not."""
    if not torch.isfinite(value):
        raise UserError(
            f"{name}: the loss is NaN or infinite by step {step}; nothing was written. "
            f"Try a learning rate below {learning_rate:g}, or look for NaN in the data"
        )


def cosine(progress, warmup=0.05):
    """Factor of the learning rate: a linear rise over the share `warmup`, half a cosine down to 0.

    progress: the share of training done, in [0, 1).
    """
    return min(1.0, progress / warmup) * 0.5 * (1 + math.cos(math.pi * progress))
