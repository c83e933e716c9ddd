"""Checkpoints of trainings: one file a training, written at an interval, trusted only where nothing that matters has changed.

They lie outside DVC's outs, which DVC deletes before a stage runs. A file is its own SHA-256 and then safetensors, so that
one rename replaces both and a damaged one is known. It goes when the stage has written its outputs.
"""

import hashlib
import json
import os

from stages.lib import artifacts, provenance, runtime
from stages.lib.runtime import UserError

DIGEST = 64  # bytes before the safetensors


def fingerprint(device, precision):
    """SHA-256 of all that a training follows from: params.yaml, code, what was read so far, torch, device, threads, precision."""
    parts = [provenance.as_started(), sorted(artifacts.verified.items()), runtime.describe(device, precision)]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def save(name, mark, tensors, about):
    """Replace the checkpoint of training `name` by `tensors` (a dict) and `about` (JSON-able), under fingerprint `mark`."""
    import torch
    from safetensors.torch import save

    text = json.dumps({"fingerprint": mark, "about": about}).encode()
    content = save({**{key: value.detach().cpu().contiguous() for key, value in tensors.items()},
                    "about": torch.frombuffer(bytearray(text), dtype=torch.uint8)})
    artifacts.write(path(name), hashlib.sha256(content).hexdigest().encode() + content, checksum=False)


def load(name, mark):
    """What `save` kept of training `name` as (tensors, about), or None; removed once the stage has succeeded.

    Of another fingerprint it is ignored, damaged it is set aside as FILE.damaged; a line on stderr says so.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load

    file = path(name)
    if runtime.RANK == 0:
        for torn in file.parent.glob(f".{file.name}.tmp*"):  # of a process that was killed while it wrote; this one holds the lock
            torn.unlink()
        runtime.at_success(lambda: file.unlink(missing_ok=True))
    try:
        content = file.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise UserError(f"{file}: can't be read ({error.strerror}); remove it to start this training anew") from None
    digest, content = content[:DIGEST], content[DIGEST:]
    try:
        if hashlib.sha256(content).hexdigest().encode() != digest:
            raise ValueError("its SHA-256 differs")
        tensors = load(content)
        kept = json.loads(bytes(tensors.pop("about").numpy()))
    except (ValueError, KeyError, SafetensorError) as error:
        aside = file.with_name(file.name + ".damaged")
        os.replace(file, aside)
        runtime.say(f"{name}: the checkpoint is damaged ({error}); set aside as {aside}, starting anew")
        return None
    if kept["fingerprint"] != mark:
        runtime.say(f"{name}: the checkpoint is of other parameters, data, code or device; starting anew")
        return None
    return tensors, kept["about"]


def path(name):
    """Where the checkpoint of training `name` lies."""
    return runtime.SCRATCH / f"{name}.checkpoint"
