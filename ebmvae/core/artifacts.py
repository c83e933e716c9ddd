"""Atomic, checksummed save and load: safetensors, npy, json. Every stage writes its outputs here.

A file is written beside its target, flushed to disk and renamed, so that a reader sees the old file
or the new one, never half of one. Its SHA-256 goes into `FILE.sha256`, which every load checks
first.
"""

import contextlib
import hashlib
import io
import json
import os
from pathlib import Path

import numpy as np

from ebmvae.core.messages import UserError, relative

_unit = None  # temporary files of the unit that is open, by target
# SHA-256 of every file that this process has read, by path: what its results follow from
verified = {}


@contextlib.contextmanager
def together():
    """Files written inside belong together: all are on disk before the first is renamed.

    If one of them can't be, none is.
    """
    global _unit
    temporary = _unit = {}
    try:
        yield
        target = None
        try:
            for target in temporary:
                os.replace(temporary[target], target)
            for target in {file.parent: file for file in temporary}.values():
                _sync(target.parent)
        except OSError as error:
            raise UserError(f"{relative(target)}: can't be written ({error.strerror})") from None
    finally:
        _unit = None
        for file in temporary.values():
            file.unlink(missing_ok=True)


def write(path, data, checksum=True):
    """Write the bytes `data` to `path` atomically.

    Raises `UserError` where the system refuses; the old file stays.

    Inside `together` the file appears at its end.
    """
    path = Path(path)
    if _unit is None:
        with together():
            return write(path, data, checksum)
    contents = {path: data}
    if checksum:
        contents[Path(f"{path}.sha256")] = hashlib.sha256(data).hexdigest().encode() + b"\n"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        for target, content in contents.items():
            _unit[target] = target.with_name(f".{target.name}.tmp{os.getpid()}")
            with open(_unit[target], "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
    except OSError as error:
        raise UserError(f"{relative(path)}: can't be written ({error.strerror})") from None


def _sync(folder):
    """Have the names in `folder` on disk too."""
    opened = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


def verify(path):
    """Raise `UserError` unless `path` exists and has the SHA-256 noted beside it."""
    path = Path(path)
    try:
        expected = Path(f"{path}.sha256").read_text().strip()
        with open(path, "rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except FileNotFoundError as error:
        raise UserError(f"{relative(error.filename)}: missing; `dvc repro` makes it") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{relative(path)}: can't be read ({error})") from None
    if digest != expected:
        raise UserError(
            f"{relative(path)}: damaged (its SHA-256 differs from the one noted beside it); "
            "remove it and run `dvc checkout`, or `dvc repro -f STAGE` to make it again"
        )
    verified[relative(path)] = digest


def save_json(path, value, checksum=True):
    """Write `value` as readable JSON; NaN and infinity are refused (ValueError)."""
    write(path, (json.dumps(value, indent=1, allow_nan=False) + "\n").encode(), checksum)


def load_json(path, checksum=True):
    """The value saved by `save_json`; raises `UserError` where it is missing or damaged."""
    if checksum:
        verify(path)
    try:
        return json.loads(Path(path).read_text(), parse_constant=_refuse)
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(
            f"{relative(path)}: not JSON ({error}); `git checkout` or `dvc repro` brings it back"
        ) from None


def _refuse(constant):
    raise ValueError(f"it holds {constant}")


def save_array(path, array):
    """Write a NumPy array as an uncompressed .npy, which can be memory-mapped."""
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, np.ascontiguousarray(array), allow_pickle=False)
    write(path, buffer.getvalue())


def load_array(path):
    """Memory-map a .npy saved by `save_array` (copy on write: changes never reach the file)."""
    verify(path)
    try:
        return np.lib.format.open_memmap(
            path, mode="c"
        )  # unlike np.load it knows neither pickles nor archives
    except (ValueError, EOFError) as error:
        raise UserError(
            f"{relative(path)}: not an array of this project ({str(error).splitlines()[0]})"
        ) from None


def save_tensors(path, tensors, about=None):
    """Write a dict of tensors as safetensors, with the JSON-able `about` in its header."""
    from safetensors.torch import save

    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    # One metadata entry only: safetensors writes several in no fixed order, and bytes must not
    # depend on chance.
    write(path, save(tensors, {"about": json.dumps(about, sort_keys=True)}))


def load_tensors(path, device="cpu"):
    """The dict of tensors and the `about` saved by `save_tensors`.

    Raises `UserError` where the file is damaged or holds NaN or infinity.
    """
    from safetensors import SafetensorError, safe_open

    verify(path)
    try:
        with safe_open(path, framework="pt", device=str(device)) as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}
            about = json.loads(file.metadata()["about"])
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        raise UserError(f"{relative(path)}: not a model file of this project ({error})") from None
    for name, tensor in tensors.items():
        if not tensor.isfinite().all():
            raise UserError(
                f"{relative(path)}: {name} holds NaN or infinity; "
                "`dvc repro -f STAGE` makes it again"
            )
    return tensors, about


def save_module(path, module, about=None):
    """Save a module's parameters and buffers; `about` holds its constructor arguments."""
    save_tensors(path, module.state_dict(), about)


def load_module(path, build, device):
    """`build(**about)` with the saved parameters, in evaluation mode, without gradients."""
    tensors, about = load_tensors(path, device)
    try:
        module = build(**about).to(device)
        module.load_state_dict(tensors)
    except (RuntimeError, TypeError) as error:
        raise UserError(
            f"{relative(path)}: does not fit its network ({str(error).splitlines()[0]})"
        ) from None
    return module.eval().requires_grad_(False)
