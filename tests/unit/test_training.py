"""The training loop: what it visits, how fast it learns, what it notes, and where it stops."""

import math
from itertools import pairwise

import pytest
import torch

from ebmvae.core import checkpoints, training
from ebmvae.core.messages import UserError
from ebmvae.core.random import generator, seeded

X = torch.randn(40, 3, generator=torch.Generator().manual_seed(0))
Y = X @ torch.tensor([1.0, -2.0, 0.5]) + 1


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def train(model, loss, n, seed=0, after_epoch=None, **settings):
    """A training that has no checkpoint of an earlier one; its history."""
    checkpoints.clear("fit")
    settings = {"batch_size": 8, "learning_rate": 0.01, "epochs": 1, **settings}
    rng, settings = generator("cpu", seed), training.Settings(**settings)
    return training.train("fit", model, loss, n, settings, rng, {}, after_epoch)


def regression(seed=0, **options):
    """A linear regression: its weights (1, 3), and the history."""
    with seeded("regression"):
        model = torch.nn.Linear(3, 1)

    def loss(index, progress):
        error = model(X[index])[:, 0] - Y[index]
        return error.square().mean(), {"absolute": error.abs().mean()}

    return model, train(model, loss, len(X), seed, **options)


def trace(n=40, offset=None, start=0.0, **options):
    """A run on the loss weight + offset(number of the step), whose gradient is 1.

    Returns all batches and progress values, the weight before and after every step, the history.
    """
    weight, batches, progress, weights = torch.nn.Parameter(torch.tensor(start)), [], [], []

    def loss(index, share):
        batches.append(index.tolist())
        progress.append(share)
        weights.append(weight.item())
        return weight + (offset(len(batches)) if offset else 0), {}

    history = train(torch.nn.ParameterList([weight]), loss, n, **options)
    return batches, progress, [*weights, weight.item()], history


def test_the_seed_alone_decides():
    before = torch.get_rng_state()
    (a, history_a), (b, history_b), (c, _) = regression(), regression(), regression(seed=1)
    assert torch.equal(a.weight, b.weight) and history_a == history_b
    assert not torch.equal(a.weight, c.weight)
    assert torch.equal(torch.get_rng_state(), before)  # the global generator is left alone


def test_it_learns():
    model, history = regression(epochs=60, learning_rate=0.1, lr_schedule="cosine")
    assert history[-1]["loss"] < 1e-4 < history[0]["loss"]
    torch.testing.assert_close(model.weight[0], torch.tensor([1.0, -2, 0.5]), rtol=0, atol=0.01)


@pytest.mark.parametrize("n", [40, 43])
def test_every_item_once_an_epoch_but_for_the_ragged_end(n):
    batches, *_ = trace(n, epochs=3)
    assert [len(batch) for batch in batches] == [8] * 15
    epochs = [sum(batches[i : i + 5], []) for i in (0, 5, 10)]
    assert all(len(set(epoch)) == 40 and set(epoch) <= set(range(n)) for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2] != list(range(40))  # in another order each time


@pytest.mark.parametrize("n", [1, 5, 8])
def test_fewer_items_than_a_batch_are_one_batch(n):
    batches, *_ = trace(n, epochs=3)
    assert [sorted(batch) for batch in batches] == [list(range(n))] * 3


@pytest.mark.parametrize("steps", [1, 5, 17])
def test_steps_set_the_length(steps):
    batches, progress, _, history = trace(steps=steps)
    assert len(batches) == steps == history[-1]["step"]
    assert progress == [i / steps for i in range(steps)]


# On a gradient of 1 Adam's steps are the learning rate (but for its eps, 1e-8).
def test_constant_schedule():
    _, _, weights, _ = trace(epochs=4, learning_rate=0.25)
    assert [a - b for a, b in pairwise(weights)] == pytest.approx([0.25] * 20, rel=1e-5)


@pytest.mark.parametrize("steps", [20, 100])
def test_cosine_schedule_rises_over_its_first_twentieth(steps):
    _, progress, weights, _ = trace(steps=steps, learning_rate=0.25, lr_schedule="cosine")
    rise = steps / 20
    factors = [min(1, i / rise) * 0.5 * (1 + math.cos(math.pi * i / steps)) for i in range(steps)]
    assert [training.cosine(share) for share in progress] == pytest.approx(factors)
    expected = [0.25 * factor for factor in factors]
    assert [a - b for a, b in pairwise(weights)] == pytest.approx(expected, rel=1e-4, abs=1e-6)


def test_the_optimiser_is_adam_with_a_memory_of_ten_gradients_and_a_hundred_squares():
    """Gradients 1, 3: the second step by Adam's formula (Kingma and Ba 2015), betas 0.9, 0.99."""
    weight, gradients, weights = torch.nn.Parameter(torch.zeros(())), iter([1.0, 3.0]), []

    def loss(index, progress):
        weights.append(weight.item())
        return next(gradients) * weight, {}

    train(torch.nn.ParameterList([weight]), loss, 16, learning_rate=0.25)
    assert weights == pytest.approx([0, -0.25], rel=1e-5)
    mean = (0.9 * 0.1 * 1 + 0.1 * 3) / (1 - 0.9**2)
    square = (0.99 * 0.01 * 1 + 0.01 * 9) / (1 - 0.99**2)
    assert weight.item() == pytest.approx(-0.25 - 0.25 * mean / square**0.5, rel=1e-5)


def test_weight_decay_shrinks_by_the_learning_rate():
    """A step is w <- (1 - lr decay) w - lr (Loshchilov and Hutter 2019), whatever the moments."""
    _, _, weights, _ = trace(8, start=8.0, epochs=2, learning_rate=0.25, weight_decay=0.5)
    once = 8 * (1 - 0.125) - 0.25
    assert weights == pytest.approx([8, once, once * (1 - 0.125) - 0.25], rel=1e-5)


@pytest.mark.parametrize(
    "length, ends",
    [
        ({"epochs": 3}, [5, 10, 15]),
        ({"steps": 210}, [*range(10, 211, 10)]),
        ({"steps": 47}, [*range(2, 47, 2), 47]),  # the last is of one step alone
    ],
)
def test_history_holds_means_since_the_last_entry(length, ends):
    _, _, weights, history = trace(offset=float, **length)
    assert [entry["step"] for entry in history] == ends
    for begin, entry in zip([0, *ends], history, strict=False):
        losses = [weights[i] + i + 1 for i in range(begin, entry["step"])]
        assert entry["loss"] == pytest.approx(sum(losses) / len(losses), rel=1e-5)


def test_history_holds_the_parts_and_what_after_epoch_returns():
    calls = iter(range(10))
    _, history = regression(epochs=3, after_epoch=lambda: {"call": next(calls)})
    assert [entry["call"] for entry in history] == [0, 1, 2]
    assert all(entry["absolute"] > 0 for entry in history)
    assert all(type(entry[key]) is float for entry in history for key in ("loss", "absolute"))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("step", [1, 5, 14])
def test_a_loss_that_is_not_finite_stops_by_the_end_of_its_epoch(value, step):
    batches = []

    def offset(number):
        batches.append(number)
        return value if number == step else 0.0

    with pytest.raises(UserError, match=r"^fit: .* 0\.01") as caught:  # the rate to try below
        trace(epochs=3, offset=offset, after_epoch=lambda: {"batches": len(batches)})
    assert "\n" not in str(caught.value)
    assert len(batches) == 5 * math.ceil(step / 5) and f" {len(batches)};" in str(caught.value)


def test_it_stops_a_long_epoch_early_and_after_epoch_sees_no_broken_model():
    nan, options = float("nan"), dict(n=1000, batch_size=1)
    with pytest.raises(UserError, match=f" {training.CHECK_EVERY};"):
        trace(offset=lambda step: nan if step == 3 else 0.0, **options)
    with pytest.raises(UserError):
        trace(offset=lambda _: nan, after_epoch=lambda: pytest.fail("called after NaN"))
    with pytest.raises(UserError, match="^fit: .* 5;"):
        trace(epochs=3, after_epoch=lambda: {"held_out": nan})


@pytest.mark.parametrize("factor", [float("inf"), 1e30])
def test_a_last_step_that_breaks_weights_or_moments_stops(factor):
    """No loss has seen its weights; a gradient of 1e30 has a square too large for float32."""
    weight = torch.nn.Parameter(torch.zeros(()))
    weight.register_hook(lambda gradient: gradient * factor)
    with pytest.raises(UserError, match="^fit: "):
        train(torch.nn.ParameterList([weight]), lambda index, progress: (weight * 1, {}), 8)
    assert not checkpoints.path("fit").exists()
