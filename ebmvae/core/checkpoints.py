"""Checkpoints of trainings: one file each, trusted only where nothing that matters changed.

They lie outside DVC's outs, which DVC deletes before a stage runs. A file is its own SHA-256 and
then safetensors, so that one rename replaces both and a damaged file is known.
"""

import hashlib
import json
import os
from pathlib import Path

import torch

from ebmvae.core import artifacts, code, devices
from ebmvae.core.messages import UserError, say

FOLDER = Path(".checkpoints")  # locks of stages too
DIGEST = 64  # bytes before the safetensors


def path(name: str) -> Path:
    """Where the checkpoint of training `name` lies."""
    return FOLDER / f"{name}.checkpoint"


def clear(stage: str) -> None:
    """Remove the checkpoints of the trainings of `stage`, whose names are its name or begin so."""
    for file in (path(stage), *FOLDER.glob(f"{stage} *.checkpoint")):
        file.unlink(missing_ok=True)


def fingerprint(params: dict, device: torch.device, precision: str) -> str:
    """SHA-256 of what a training follows from: parameters, code, files read so far, device."""
    read = sorted(artifacts.verified.items())
    parts = [params, code.loaded(), read, devices.describe(device, precision)]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def save(name: str, mark: str, tensors: dict, about) -> None:
    """Replace the checkpoint of training `name` by `tensors` and the JSON-able `about`.

    mark: the `fingerprint` of the training.
    """
    from safetensors.torch import save

    text = json.dumps({"fingerprint": mark, "about": about}).encode()
    tensors = {key: value.detach().cpu().contiguous() for key, value in tensors.items()}
    content = save({**tensors, "about": torch.frombuffer(bytearray(text), dtype=torch.uint8)})
    digest = hashlib.sha256(content).hexdigest().encode()
    artifacts.write(path(name), digest + content, checksum=False)


def load(name: str, mark: str):
    """What `save` kept of training `name` as (tensors, about), or None.

    A checkpoint of another fingerprint is ignored, a damaged one is set aside as FILE.damaged; a
    line says so. Raises `UserError` where it can't be read.
    """
    file = path(name)
    # Of a process that was killed while it wrote; this one holds the lock.
    for torn in file.parent.glob(f".{file.name}.tmp*"):
        torn.unlink()
    try:
        content = file.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise UserError(
            f"{file}: can't be read ({error.strerror}); remove it to start this training anew"
        ) from None
    try:
        tensors, kept = _parse(content)
    except ValueError as error:
        aside = file.with_name(file.name + ".damaged")
        os.replace(file, aside)
        say(f"{name}: the checkpoint is damaged ({error}); set aside as {aside}, starting anew")
        return None
    if kept["fingerprint"] != mark:
        say(f"{name}: the checkpoint is of other parameters, data, code or device; starting anew")
        return None
    return tensors, kept["about"]


def _parse(content: bytes):
    """Tensors, and {"fingerprint", "about"}, of a checkpoint's bytes; ValueError where damaged."""
    from safetensors import SafetensorError
    from safetensors.torch import load

    digest, content = content[:DIGEST], content[DIGEST:]
    if hashlib.sha256(content).hexdigest().encode() != digest:
        raise ValueError("its SHA-256 differs")
    try:
        tensors = load(content)
        return tensors, json.loads(bytes(tensors.pop("about").numpy()))
    except (KeyError, SafetensorError) as error:
        raise ValueError(str(error)) from None
