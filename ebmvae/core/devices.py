"""The device of a stage, its threads, determinism, and the precision of matrix products."""

import contextlib
import ctypes
import os
import platform

import torch

from ebmvae.core.messages import UserError, say


def setup(threads: int) -> torch.device:
    """Make this process fast and deterministic, on `threads` CPU threads; returns the device.

    `DEVICE=cpu` (or `cuda:1`) in the environment overrides the choice of CUDA where there is one.
    Raises `UserError` for a device that is not there.
    """
    from threadpoolctl import threadpool_limits

    _keep_freed_memory()
    # Deterministic cuBLAS needs it before CUDA starts.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.set_num_threads(threads)
    threadpool_limits(threads)  # NumPy's, which torch does not know of
    # torch.use_deterministic_algorithms(True) would load torch's compiler, which takes a second.
    torch.set_deterministic_debug_mode("error")
    # Filling fresh tensors with NaN guards code that reads before writing; ours does not.
    torch.utils.deterministic.fill_uninitialized_memory = False
    torch.backends.cudnn.benchmark = False
    name = os.environ.get("DEVICE") or ("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        if device.index is not None:
            torch.cuda.set_device(device)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"DEVICE={name} can't be used here ({reason}); try DEVICE=cpu") from None
    return device


def _keep_freed_memory():
    """Tell glibc to keep freed memory: otherwise a third of a training goes into page faults."""
    if platform.system() != "Linux":
        return
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except OSError:  # musl and the like have no mallopt
        return
    M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
    mallopt(M_TRIM_THRESHOLD, 2**31 - 1)
    # Older glibc takes no more than 32 MiB.
    mallopt(M_MMAP_THRESHOLD, 2**30) or mallopt(M_MMAP_THRESHOLD, 2**25)


def available_precision(device: torch.device, wanted: str) -> str:
    """What `matmul_precision: wanted` (ieee or bf16) comes to on `device`: ieee, bf16 or tf32.

    A GPU has TF32 in the place of bfloat16. A processor without bfloat16 products would only be
    slower with them: it keeps to ieee, full precision.
    """
    if wanted == "ieee":
        return "ieee"
    if device.type == "cuda":
        return "tf32"
    capabilities = torch.cpu.get_capabilities()
    fast = capabilities.get("avx512_bf16") or capabilities.get("amx_bf16")
    return "bf16" if fast else "ieee"


@contextlib.contextmanager
def matmul_precision(device: torch.device, wanted: str):
    """Inside, float32 matrix products may round their inputs to `available_precision`.

    They add up in float32 at any precision. Says so in a line where the processor lacks `wanted`.
    """
    precision = available_precision(device, wanted)
    if precision == "ieee" != wanted:
        say(f"matmul_precision: this processor has no {wanted} products; using ieee")
    on_cuda = device.type == "cuda"
    products = torch.backends.cuda.matmul if on_cuda else torch.backends.mkldnn.matmul
    before = products.fp32_precision
    products.fp32_precision = precision
    try:
        yield
    finally:
        products.fp32_precision = before


def describe(device: torch.device, wanted: str = "ieee") -> dict:
    """Where and in which precision a result was made; no host name and no path."""
    on_cuda = device.type == "cuda"
    return {
        "device": torch.cuda.get_device_name(device) if on_cuda else "cpu",
        "threads": torch.get_num_threads(),
        "matmul_precision": available_precision(device, wanted),
        "torch": torch.__version__,
        "python": platform.python_version(),
    }
