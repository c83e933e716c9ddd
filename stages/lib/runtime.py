"""Device, allocator, seeds, determinism, and how a stage starts and fails.

Every stage ends with `runtime.run(main)`: a `UserError` becomes one line on stderr and exit code 2, SIGINT and SIGTERM
end it with 130 and 143. It begins with `runtime.begin(name)`, so that no two processes write the same outputs.
"""

import contextlib
import ctypes
import fcntl
import hashlib
import itertools
import os
import platform
import re
import signal
import sys
import threading
import time
from pathlib import Path

from stages import PARENTS, PROCESSES, RANK, parent_of
from stages.lib import lockwatch, provenance

# Loading torch takes a second or more; a stage that fails on its parameters should not wait for it.


class UserError(Exception):
    """Something the user can mend: the message names the key or file, and the remedy, in one line."""

    def __init__(self, message):
        super().__init__(" ".join(str(message).splitlines()))  # file names may hold line breaks


class Stopped(BaseException):
    """SIGINT or SIGTERM came; `signum` says which. Not an `Exception`: nothing but `run` should catch it."""

    def __init__(self, signum):
        self.signum = signum
        super().__init__(signal.Signals(signum).name)


SCRATCH = Path(".checkpoints")  # locks and checkpoints; outside DVC's outs, which it deletes before a stage runs
_at_success, _signals = [], {"held": False, "came": None}


def run(main):
    """Call `main()` as a command. Exit codes: 2 for a `UserError`, 130 for SIGINT, 143 for SIGTERM, one line on stderr."""
    for signum in (signal.SIGINT, signal.SIGTERM):
        signal.signal(signum, _on_signal)
    try:
        main()
        if changed := provenance.edited():
            raise UserError(f"{', '.join(changed)}: edited while this stage ran, and DVC would take what it made for the work of the "
                            "edited; start it again")
        for signum in (signal.SIGINT, signal.SIGTERM):  # it is done: stopping now would only lose its checkpoints
            signal.signal(signum, signal.SIG_IGN)
        for action in reversed(_at_success):  # the lock goes last
            action()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except OSError as error:  # a full disk under a log, a reader that is gone
        say(f"error: {error}")
        sys.exit(2)
    except Stopped as stopped:
        say(f"stopped by {stopped}")
        sys.exit(128 + stopped.signum)


def say(line):
    """One line to the user, beside whatever a progress bar shows; nobody may be left to read it. Of several processes the first speaks."""
    from tqdm import tqdm

    if RANK > 0:
        return
    with contextlib.suppress(OSError, ValueError):
        tqdm.write(line, file=sys.stderr)
        sys.stderr.flush()


def at_success(action):
    """Have `run` call `action()` once main has returned, its outputs written."""
    _at_success.append(action)


def _on_signal(signum, frame):
    signal.signal(signum, signal.SIG_DFL)  # a second one ends the process at once
    _signals["came"] = signum
    if not _signals["held"]:
        raise Stopped(signum)


@contextlib.contextmanager
def stop_between_steps():
    """Inside, SIGINT and SIGTERM wait for the next call of the function that this yields, which then returns True."""
    _signals["held"] = True
    try:
        yield lambda: _signals["came"] is not None
    finally:
        _signals["held"] = False
    if _signals["came"] is not None:
        raise Stopped(_signals["came"])


def stop():
    """End this process as the signal that came does; or as SIGTERM, where it came to another process of this training only."""
    raise Stopped(_signals["came"] or signal.SIGTERM)


def begin(*name, several=False):
    """Make this process the only one that runs stage `name`; it stops when DVC, where DVC started it, is gone.

    A killed `dvc repro` leaves its child running, which could write into the outputs of the next run (DESIGN, section 3).
    Waits for another process of this stage, LOCK_SECONDS of the environment or else 60, then raises `UserError`. The lock ends
    with the process.
    `several`: torchrun may start this stage in several processes, of which the first holds the lock.
    """
    provenance.as_started()
    stage = " ".join(name)
    if PROCESSES > 1 and not several:
        raise UserError(f"{stage}: runs in one process; torchrun is for train_vae and train_baseline")
    if PARENTS:
        threading.Thread(target=_stop_with_dvc, daemon=True).start()
    if RANK > 0:
        return
    patience = seconds("LOCK_SECONDS")
    path = SCRATCH / f"{stage}.lock"
    try:
        SCRATCH.mkdir(exist_ok=True)
        file = open(path, "w")
    except OSError as error:
        raise UserError(f"{path}: can't be written ({error.strerror})") from None
    _at_success.append(file.close)  # and keeps it open until then
    end, said = time.monotonic() + patience, False
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        except OSError as error:
            if not isinstance(error, BlockingIOError):
                raise UserError(f"{path}: can't be locked ({error.strerror}); use a file system that has locks") from None
            if time.monotonic() > end:
                raise UserError(f"{stage}: another process is running this stage in this folder; wait for it or end it "
                                f"(it holds {path})") from None
            if not said:
                print(f"{stage}: waiting for another process that runs this stage", file=sys.stderr, flush=True)
                said = True
            time.sleep(0.2)
    if PARENTS:
        lockwatch.start(PARENTS[-1])


def seconds(variable):
    """A number of seconds from the environment, 60 without; raises `UserError` for what is no number."""
    value = os.environ.get(variable, "60")
    if not re.fullmatch(r"[0-9]+(\.[0-9]*)?", value):
        raise UserError(f"{variable}={value} is not a number of seconds")
    return float(value)


def _stop_with_dvc():
    # A shell or torchrun between outlives DVC, and then has another parent.
    while os.getppid() == PARENTS[0] and all(parent_of(below) == above for below, above in itertools.pairwise(PARENTS)):
        time.sleep(0.5)
    if _signals["came"] is None:  # else it is stopping already, and a second one would end it at once
        os.kill(os.getpid(), signal.SIGTERM)
        say("DVC is gone: stopping")


def setup(threads):
    """Make this process fast and deterministic, on `threads` CPU threads; returns the `torch.device` to use.

    `DEVICE=cpu` (or `cuda:1`) in the environment overrides the choice of CUDA where there is one. The same
    parameters, device class and thread count give the same bytes.
    """
    keep_freed_memory()
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # deterministic cuBLAS needs it before CUDA starts
    import torch
    from threadpoolctl import threadpool_limits

    torch.set_num_threads(threads)
    threadpool_limits(threads)  # NumPy's, which torch does not know of
    torch.set_deterministic_debug_mode("error")  # torch.use_deterministic_algorithms(True) would load its compiler: a second
    # Filling fresh tensors with NaN guards code that reads before writing; ours does not, and it costs time.
    torch.utils.deterministic.fill_uninitialized_memory = False
    torch.backends.cudnn.benchmark = False
    name = os.environ.get("DEVICE") or ("cuda" if torch.cuda.is_available() else "cpu")
    if name == "cuda" and PROCESSES > 1:
        name = f"cuda:{os.environ.get('LOCAL_RANK', 0)}"
    try:
        device = torch.device(name)
        if device.index is not None:
            torch.cuda.set_device(device)
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


def precision_on(device, wanted):
    """The precision in which `device` multiplies matrices where `wanted` (ieee or bf16) is asked for: ieee, bf16 or tf32.

    A GPU has TF32 in the place of bf16. A processor without bfloat16 products would be slower with them: it keeps to ieee.
    """
    import torch

    if wanted == "ieee":
        return "ieee"
    if device.type == "cuda":
        return "tf32"
    can = torch.cpu.get_capabilities()
    return "bf16" if can.get("avx512_bf16") or can.get("amx_bf16") else "ieee"


@contextlib.contextmanager
def matmul_precision(device, wanted):
    """Inside, float32 matrix products round their inputs to `precision_on(device, wanted)` and add up in float32.

    Says so in a line where the processor has no such products.
    """
    import torch

    precision = precision_on(device, wanted)
    if precision == "ieee" != wanted:
        say(f"matmul_precision: {wanted} is not to be had on this processor; going on in full precision (ieee)")
    family = torch.backends.cuda.matmul if device.type == "cuda" else torch.backends.mkldnn.matmul
    before = family.fp32_precision
    family.fp32_precision = precision
    try:
        yield
    finally:
        family.fp32_precision = before


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

    with torch.random.fork_rng(devices=range(torch.cuda.device_count()) if torch.cuda.is_initialized() else []):
        torch.manual_seed(seed_of(*key))
        yield


def describe(device, wanted="ieee"):
    """Where a result was made, as a dict of strings and numbers; no host name and no path. `wanted`: matmul_precision."""
    import torch

    return {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "threads": torch.get_num_threads(),
        "matmul_precision": precision_on(device, wanted),
        "torch": torch.__version__,
        "python": platform.python_version(),
    }


def relative(path):
    """`path` as the user would type it from the project's folder."""
    try:
        return str(Path(path).resolve().relative_to(Path.cwd()))
    except ValueError:
        return str(path)
