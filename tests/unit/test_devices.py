"""Device, threads, determinism and matmul precision."""

import os
import platform

import pytest
import torch
from threadpoolctl import threadpool_info, threadpool_limits

from ebmvae.core import devices
from ebmvae.core.messages import UserError

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


@pytest.fixture
def process(monkeypatch):
    """What `setup` changes in a process is put back after the test."""
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", "removed")
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG")
    monkeypatch.setenv("DEVICE", "cpu")
    mode, threads = torch.get_deterministic_debug_mode(), torch.get_num_threads()
    monkeypatch.setattr(torch.utils.deterministic, "fill_uninitialized_memory", True)
    with threadpool_limits():
        yield monkeypatch
    torch.set_num_threads(threads)
    torch.set_deterministic_debug_mode(mode)


@pytest.mark.parametrize("threads", [1, 2])
def test_setup_sets_threads_and_determinism(process, threads):
    assert devices.setup(threads) == CPU
    assert torch.get_num_threads() == devices.describe(CPU)["threads"] == threads
    pools = [pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"]
    assert pools and all(number == threads for number in pools)  # NumPy's
    assert torch.are_deterministic_algorithms_enabled()
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"
    assert not torch.utils.deterministic.fill_uninitialized_memory


def test_a_device_that_is_not_there(process):
    for name in ("gpu", "cuda:99"):
        process.setenv("DEVICE", name)
        with pytest.raises(UserError, match=f"DEVICE={name} "):
            devices.setup(1)


@pytest.mark.parametrize(
    "capability, precision", [("avx512_bf16", "bf16"), ("amx_bf16", "bf16"), ("avx2", "ieee")]
)
def test_matmul_precision_is_what_the_processor_has(monkeypatch, capsys, capability, precision):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {capability: True})
    products = torch.backends.mkldnn.matmul
    before = products.fp32_precision
    with pytest.raises(ZeroDivisionError), devices.matmul_precision(CPU, "bf16"):
        assert products.fp32_precision == precision
        _ = 1 / 0
    assert products.fp32_precision == before
    assert ("matmul_precision" in capsys.readouterr().err) == (precision == "ieee")
    assert devices.describe(CPU, "bf16")["matmul_precision"] == precision
    with devices.matmul_precision(CPU, "ieee"):
        assert products.fp32_precision == "ieee"
    assert capsys.readouterr().err == ""


def test_ieee_is_exact_to_float32_and_bf16_to_rounded_inputs():
    """bf16 allows rounding to 8 bits; whether oneDNN makes use of it depends on the processor."""
    rng = torch.Generator().manual_seed(0)
    a, b = torch.randn(64, 512, generator=rng), torch.randn(512, 64, generator=rng)
    exact, magnitude = a.double() @ b.double(), (a.abs() @ b.abs()).max()
    for precision, tolerance in (("ieee", 2**-20), ("bf16", 2**-7)):
        with devices.matmul_precision(CPU, precision):
            error = (a @ b - exact).abs().max()
        assert error < tolerance * magnitude


def test_matmul_precision_on_a_gpu():
    products = torch.backends.cuda.matmul
    before = products.fp32_precision
    with devices.matmul_precision(CUDA, "bf16"):
        assert products.fp32_precision == "tf32" != before
    assert products.fp32_precision == before


def test_describe_holds_neither_host_nor_path():
    values = [str(value) for value in devices.describe(CPU).values()]
    assert "cpu" in values and torch.__version__ in values
    assert not any(platform.node() in value or "/" in value for value in values)
