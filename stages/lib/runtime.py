"""Device, allocator, seeds, determinism, and how a stage starts and fails.

Every stage ends with `runtime.run(main)`: a `UserError` becomes one line on stderr and exit code 2.
"""

import contextlib
import ctypes
import hashlib
import os
import platform
import sys
from pathlib import Path

# Loading torch takes a second or more; a stage that fails on its parameters should not wait for it.


class UserError(Exception):
    """Something the user can mend: the message names the key or file, and the remedy, in one line."""


def run(main):
    """Call `main()` as a command: 2 for a `UserError`, 130 for Ctrl-C, one line on stderr for either."""
    try:
        main()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)


def setup():
    """Make this process fast and deterministic; returns the `torch.device` to use.

    `DEVICE=cpu` (or `cuda:1`) in the environment overrides the choice of CUDA where there is one. The same
    parameters, device class and thread count give the same bytes.
    """
    keep_freed_memory()
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # deterministic cuBLAS needs it before CUDA starts
    import torch

    torch.use_deterministic_algorithms(True)
    # Filling fresh tensors with NaN guards code that reads before writing; ours does not, and it costs time.
    torch.utils.deterministic.fill_uninitialized_memory = False
    torch.backends.cudnn.benchmark = False
    name = os.environ.get("DEVICE") or ("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise UserError(f"DEVICE={name} can't be used here ({str(error).splitlines()[0]}); try DEVICE=cpu") from None
    return device


def keep_freed_memory():
    """Tell glibc to keep freed memory: otherwise a third of training goes into page faults (DESIGN, section 4)."""
    if platform.system() != "Linux":
        return
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except OSError:  # musl and the like have no mallopt
        return
    M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
    mallopt(M_TRIM_THRESHOLD, 2**31 - 1)
    mallopt(M_MMAP_THRESHOLD, 2**30) or mallopt(M_MMAP_THRESHOLD, 2**25)  # older glibc takes no more than 32 MiB


def generator(device, *key):
    """A `torch.Generator` on `device` seeded by `key` (numbers and strings): the same key, the same stream."""
    import torch

    return torch.Generator(device=device).manual_seed(seed_of(*key))


def seed_of(*key):
    """A 63-bit seed from any numbers and strings; distinct keys give unrelated seeds."""
    return int.from_bytes(hashlib.sha256(repr(key).encode()).digest()[:8], "big") >> 1


@contextlib.contextmanager
def seeded(*key):
    """Code inside draws from torch's global generators as seeded by `key`; their state is restored afterwards.

    torch.nn initialises weights and drops units from the global generators only; nothing else here uses them.
    """
    import torch

    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        torch.manual_seed(seed_of(*key))
        yield


def describe(device):
    """Where a result was made, as a dict of strings and numbers; no host name and no path."""
    import torch

    return {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "python": platform.python_version(),
    }


def relative(path):
    """`path` as the user would type it from the project's folder."""
    try:
        return str(Path(path).resolve().relative_to(Path.cwd()))
    except ValueError:
        return str(path)
