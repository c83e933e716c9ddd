"""The one training loop: shuffled batches, a learning-rate schedule, history, progress, checkpoints, a stop at the first NaN."""

import math
import sys
import time

import torch
from tqdm import tqdm

from stages.lib import checkpoints, objectives, parallel, runtime
from stages.lib.runtime import UserError

CHECK_EVERY = 50  # steps between looks at the loss; each look makes a GPU wait


def train(name, model, loss, n, *, batch_size, epochs, learning_rate, generator,
          lr_schedule="constant", weight_decay=0.0, steps=None, after_epoch=None, precision="ieee"):
    """Minimise `loss(index, progress) -> (scalar, dict of scalars)` with AdamW; returns the history, a dict an epoch.

    model: the module whose parameters are trained. index int64 (B,) on the generator's device is a batch of range(n), each
    visited once an epoch but for the ragged end; progress in [0, 1) is the share of training done. `steps` instead of
    `epochs` sets the length in optimiser steps, and history then has about 20 entries. `after_epoch()` may return more
    numbers for an entry. `precision` is that of matrix products (runtime.matmul_precision). Raises `UserError` at a NaN or
    infinite loss, naming the step.

    A training that was stopped or killed goes on from its checkpoint and gives the same bytes as one that was not. Where
    torchrun started several processes, all call this, and `loss` is of `parallel.share` of the batch; what they give, resumed or
    not, is that of one process but for rounding.
    """
    parameters = list(model.parameters())
    optimiser = torch.optim.AdamW(parameters, lr=learning_rate, betas=(0.9, 0.99), weight_decay=weight_decay, fused=True)
    size = min(n, batch_size)
    a_pass = max(1, n // size)  # steps
    total = steps or epochs * a_pass
    entry_every = max(1, total // 20) if steps else a_pass
    done, order, history, sums = 0, None, [], {}
    mark, interval = checkpoints.fingerprint(generator.device, precision), runtime.seconds("CHECKPOINT_SECONDS")
    keep = lambda: checkpoints.save(name, mark, *state(done, order, history, sums, model, optimiser, generator))
    bar = tqdm(total=total, desc=name, unit="step", disable=runtime.RANK > 0 or not sys.stderr.isatty(), dynamic_ncols=True)
    saved = time.monotonic()
    with (bar, runtime.matmul_precision(generator.device, precision), runtime.stop_between_steps() as stopping,
          parallel.together(name, generator.device, size)):
        if kept := parallel.in_turn(lambda: checkpoints.load(name, mark)):
            done, order, history, sums = restore(*kept, model, optimiser, generator)
            runtime.say(f"{name}: going on from step {done} of {total}")
            bar.initial = bar.n = done  # its rate is of what is done now
        loss = parallel.shared(model, loss, size)
        while done < total:
            place = done % a_pass * size
            if place == 0:
                order = torch.randperm(n, generator=generator, device=generator.device)
            index = order[place : place + size]
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
                if not all(map(math.isfinite, entry.values())):
                    stop_at_nan(name, torch.tensor(torch.nan), done, learning_rate)
                history.append(entry)
                sums = {}
                line = "  ".join(f"{key} {part:.4g}" for key, part in entry.items() if key != "step")
                runtime.say(f"{name}: step {done}/{total}  {line}")
            stop, due = parallel.agreed(done, stopping(), time.monotonic() - saved > interval)
            if stop or due or done == total:
                weights = sum(weight.detach().sum() for weight in parameters)  # the last step's, which no loss has seen
                # A squared gradient too large for float32 freezes its weight, and shows nowhere else.
                weights += sum(moments["exp_avg_sq"].sum() for moments in optimiser.state.values())
                stop_at_nan(name, weights + sums.get("loss", 0), done, learning_rate)
                if runtime.RANK == 0:
                    keep()
                saved = time.monotonic()
                if stop:
                    runtime.say(f"{name}: stopped at step {done} of {total}; started again, it goes on from there")
                    runtime.stop()  # not only where the signal came: the first process would write what is half trained
    return history


def state(done, order, history, sums, model, optimiser, generator):
    """All that the next step follows from, as (tensors, about) for `checkpoints.save`."""
    tensors = {f"model/{key}": value for key, value in model.state_dict().items()}
    for i, moments in optimiser.state_dict()["state"].items():
        tensors.update({f"adam/{i}/{key}": value for key, value in moments.items()})
    tensors.update({f"sum/{key}": value for key, value in sums.items()})
    # Dropout draws from torch's global generators; everything else from this one.
    tensors.update(order=order, generator=generator.get_state(), cpu=torch.get_rng_state())
    if generator.device.type == "cuda":
        tensors["cuda"] = torch.cuda.get_rng_state(generator.device)
    return tensors, {"done": done, "history": history, "sums": list(sums)}


@torch.no_grad()
def restore(tensors, about, model, optimiser, generator):
    """Put back what `state` kept; returns done, order, history, sums."""
    parts = {"model": {}, "adam": {}, "sum": {}}
    for key, value in tensors.items():
        family, _, rest = key.partition("/")
        if rest:
            parts[family][rest] = value.to(generator.device)
    model.load_state_dict(parts["model"])
    moments = {}
    for key, value in parts["adam"].items():
        i, _, kind = key.partition("/")
        parameter = optimiser.param_groups[0]["params"][int(i)]
        if value.shape == parameter.shape:  # fused Adam goes through memory, so moments lie as their weights do (channels_last)
            value = torch.empty_like(parameter).copy_(value)
        moments.setdefault(int(i), {})[kind] = value
    optimiser.load_state_dict({**optimiser.state_dict(), "state": moments})
    generator.set_state(tensors["generator"])
    torch.set_rng_state(tensors["cpu"])
    if "cuda" in tensors:
        torch.cuda.set_rng_state(tensors["cuda"], generator.device)
    return about["done"], tensors["order"].to(generator.device), about["history"], {key: parts["sum"][key] for key in about["sums"]}


def stop_at_nan(name, value, step, learning_rate):
    """Raise `UserError` if `value`, the loss summed since the last history entry, is not finite."""
    if not torch.isfinite(value):
        raise UserError(f"{name}: the loss is NaN or infinite by step {step}; nothing was written. "
                        f"Try a learning rate below {learning_rate:g}, or look for NaN in the data")
