"""Seeds and generators: what a stream follows from, and what it leaves alone."""

import pytest
import torch

from ebmvae.core.random import generator, normal_per_sample, seed_of, seeded


@pytest.fixture(autouse=True)
def global_generator_is_left_alone():
    before = torch.get_rng_state()
    yield
    assert torch.equal(torch.get_rng_state(), before)


def test_seeds_are_the_same_in_every_process_and_version():
    """Results committed in the repository follow from these numbers."""
    assert seed_of("fit_ebm", 0) == 5606284861942643806


def test_distinct_keys_give_distinct_seeds_of_63_bits():
    keys = [(), ("a",), ("a", 0), ("a", "0"), ("a", 1), ("ab",), ("a", "b"), (0, "a"), (-1,)]
    seeds = {seed_of(*key) for key in keys}
    assert len(seeds) == len(keys) and all(0 <= seed < 2**63 for seed in seeds)


def test_generator_follows_its_key():
    draws = [torch.rand(4, generator=generator("cpu", *key)) for key in ((1,), (1,), (2,))]
    assert torch.equal(draws[0], draws[1]) and not torch.equal(draws[0], draws[2])


def test_seeded_initialises_weights_by_its_key_and_puts_the_state_back():
    weights = []
    for key in ("a", "a", "b"):
        with seeded(key):
            weights.append(torch.nn.Linear(3, 2).weight)
    assert torch.equal(weights[0], weights[1]) and not torch.equal(weights[0], weights[2])
    with pytest.raises(ZeroDivisionError), seeded("c"):
        _ = 1 / 0


def test_noise_of_a_sample_does_not_depend_on_its_batch():
    noise = normal_per_sample((3, 4), [1, 2, 2**62, 1])
    assert noise.shape == (4, 3, 4) and torch.equal(noise[0], noise[3])
    assert not torch.equal(noise[0], noise[1])
    assert torch.equal(noise[1:2], normal_per_sample((3, 4), [2]))


def test_noise_is_standard_normal():
    noise = normal_per_sample((100,), range(400))
    n = noise.numel()
    assert abs(noise.mean().item()) < 4 / n**0.5
    assert abs(noise.var().item() - 1) < 4 * (2 / n) ** 0.5
