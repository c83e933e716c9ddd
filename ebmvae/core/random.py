"""Random numbers: explicit generators, seeded by a key of numbers and strings."""

import contextlib
import hashlib

import torch


def seed_of(*key) -> int:
    """A 63-bit seed from any numbers and strings; distinct keys give unrelated seeds."""
    return int.from_bytes(hashlib.sha256(repr(key).encode()).digest()[:8], "big") >> 1


def generator(device, *key) -> torch.Generator:
    """A generator on `device` seeded by `key`: the same key, the same stream."""
    return torch.Generator(device=device).manual_seed(seed_of(*key))


@contextlib.contextmanager
def seeded(*key):
    """Inside, torch's global generators are seeded by `key`; their state is restored afterwards.

    torch.nn initialises weights and drops units from the global generators only; nothing else here
    uses them.
    """
    on_cuda = torch.cuda.is_initialized()
    with torch.random.fork_rng(devices=range(torch.cuda.device_count()) if on_cuda else []):
        torch.manual_seed(seed_of(*key))
        yield


def normal_per_sample(shape, seeds) -> torch.Tensor:
    """Standard normal noise (len(seeds), *shape) on the CPU, one generator per sample.

    So a sample does not depend on the batch that it is drawn in. seeds: integers, one per sample.
    """
    noise = torch.empty(len(seeds), *shape)
    for row, seed in zip(noise, seeds, strict=True):
        row.normal_(generator=torch.Generator().manual_seed(seed))
    return noise
