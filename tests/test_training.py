"""The training loop: what it visits, how fast it learns, what it notes, and where it stops."""

import math
import shutil

import pytest
import torch

from stages.lib import objectives, runtime, training
from stages.lib.runtime import UserError, generator

X = torch.randn(40, 3, generator=torch.Generator().manual_seed(0))
Y = X @ torch.tensor([1.0, -2.0, 0.5]) + 1


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def train(*args, **options):
    """A training that finds no checkpoint of an earlier one."""
    shutil.rmtree(runtime.SCRATCH, ignore_errors=True)
    return training.train(*args, **options)


def net():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return torch.nn.Linear(3, 1)


def fit(seed=0, model=None, **options):
    """A linear regression: the model and its history."""
    model = model or net()

    def loss(index, progress):
        error = model(X[index])[:, 0] - Y[index]
        return error.square().mean(), {"absolute": error.abs().mean()}

    options = {"batch_size": 8, "epochs": 3, "learning_rate": 0.01, **options}
    return model, train("fit", model, loss, len(X), generator=generator("cpu", seed), **options)


def watch(n=40, of=None, **options):
    """All batches and progress values of a run whose loss is `of(number of the step)`; the weight after each; history."""
    weight, batches, progress, weights = torch.nn.Parameter(torch.zeros(())), [], [], []

    def loss(index, share):
        batches.append(index.tolist())
        progress.append(share)
        weights.append(weight.item())
        return weight + (of(len(batches)) if of else 0), {}

    options = {"batch_size": 8, "epochs": 1, "learning_rate": 0.01, **options}
    history = train("watch", torch.nn.ParameterList([weight]), loss, n, generator=generator("cpu", 0), **options)
    return batches, progress, weights + [weight.item()], history


def weights_equal(a, b):
    return all(torch.equal(x, y) for x, y in zip(a.parameters(), b.parameters()))


# ---- determinism


def test_the_same_seed_gives_the_same_weights():
    (a, history_a), (b, history_b) = fit(), fit()
    assert weights_equal(a, b)
    assert history_a == history_b


def test_another_seed_gives_other_weights():
    assert not weights_equal(fit(seed=0)[0], fit(seed=1)[0])


def test_it_does_not_touch_the_global_generator():
    state = torch.random.get_rng_state()
    fit(model=net())
    assert torch.equal(torch.random.get_rng_state(), state)


def test_it_learns():
    model, history = fit(epochs=60, learning_rate=0.1, lr_schedule="cosine")
    assert history[-1]["loss"] < 1e-4 < history[0]["loss"]
    torch.testing.assert_close(model.weight[0], torch.tensor([1.0, -2.0, 0.5]), rtol=0, atol=0.01)


# ---- batches


def test_every_index_is_visited_once_an_epoch():
    batches, _, _, _ = watch(n=40, epochs=3)
    assert len(batches) == 15 and all(len(batch) == 8 for batch in batches)
    epochs = [sum(batches[i : i + 5], []) for i in (0, 5, 10)]
    assert all(sorted(epoch) == list(range(40)) for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2] != list(range(40))  # in another order each time


def test_the_ragged_end_of_an_epoch_is_left_out():
    batches, _, _, _ = watch(n=43, epochs=2)
    assert [len(batch) for batch in batches] == [8] * 10
    for epoch in (sum(batches[:5], []), sum(batches[5:], [])):
        assert len(set(epoch)) == 40 and set(epoch) <= set(range(43))


@pytest.mark.parametrize("n, epochs", [(1, 3), (5, 2), (8, 2)])
def test_fewer_items_than_a_batch_are_one_batch(n, epochs):
    batches, _, _, _ = watch(n=n, epochs=epochs)
    assert [sorted(batch) for batch in batches] == [list(range(n))] * epochs


@pytest.mark.parametrize("steps", [1, 3, 5, 17])
def test_steps_set_the_length(steps):
    batches, progress, _, history = watch(epochs=None, steps=steps)
    assert len(batches) == steps and history[-1]["step"] == steps
    assert progress == [i / steps for i in range(steps)]


# ---- learning rate. Adam's steps on a constant gradient of 1 are exactly the learning rate (but for its eps, 1e-8)


def step_lengths(**options):
    _, progress, weights, _ = watch(epochs=4, **options)
    return progress, [before - after for before, after in zip(weights, weights[1:])]


def test_constant_schedule():
    _, lengths = step_lengths(learning_rate=0.25)
    assert lengths == pytest.approx([0.25] * 20, rel=1e-5)


def test_cosine_schedule():
    progress, lengths = step_lengths(learning_rate=0.25, lr_schedule="cosine")
    assert progress == [i / 20 for i in range(20)]
    falling = [0.125 * (1 + math.cos(math.pi * i / 20)) for i in range(20)]
    assert lengths == pytest.approx([0.0, *falling[1:]], rel=1e-4, abs=1e-7)  # the rise is over by step 1, 5 % of 20
    assert lengths == pytest.approx([0.25 * objectives.cosine(p) for p in progress], rel=1e-4, abs=1e-7)


def test_cosine_schedule_rises_over_its_first_twentieth():
    _, _, weights, _ = watch(epochs=None, steps=100, learning_rate=0.25, lr_schedule="cosine")
    lengths = [before - after for before, after in zip(weights, weights[1:])]
    expected = [0.25 * min(1, i / 5) * 0.5 * (1 + math.cos(math.pi * i / 100)) for i in range(100)]
    assert lengths == pytest.approx(expected, rel=1e-4, abs=1e-6)


def test_the_optimiser_is_adam_with_a_memory_of_ten_gradients_and_a_hundred_squares():
    """Gradients 1 and then 3: the second step by Adam's formula (Kingma and Ba 2015), betas 0.9 and 0.99."""
    weight, gradients, seen = torch.nn.Parameter(torch.zeros(())), iter([1.0, 3.0]), []

    def loss(index, progress):
        seen.append(weight.item())
        return next(gradients) * weight, {}

    train("adam", torch.nn.ParameterList([weight]), loss, 16, generator=generator("cpu", 0), batch_size=8, epochs=1, learning_rate=0.25)
    assert seen == pytest.approx([0, -0.25], rel=1e-5)
    mean, square = (0.9 * 0.1 * 1 + 0.1 * 3) / (1 - 0.9**2), (0.99 * 0.01 * 1 + 0.01 * 9) / (1 - 0.99**2)
    assert weight.item() == pytest.approx(-0.25 - 0.25 * mean / square**0.5, rel=1e-5)


def test_weight_decay_shrinks_by_the_learning_rate():
    """On a gradient of 1 a step is w <- (1 - lr decay) w - lr (Loshchilov and Hutter 2019), whatever the moments."""
    weight = torch.nn.Parameter(torch.tensor(8.0))
    train("decay", torch.nn.ParameterList([weight]), lambda index, progress: (weight, {}), 8, generator=generator("cpu", 0),
          batch_size=8, epochs=2, learning_rate=0.25, weight_decay=0.5)
    once = 8 * (1 - 0.125) - 0.25
    assert weight.item() == pytest.approx(once * (1 - 0.125) - 0.25, rel=1e-5)


# ---- history


def test_history_has_an_entry_an_epoch_with_the_mean_loss():
    """A loss of weight + step number: the weight moves by the learning rate, -0.01 a step."""
    _, _, weights, history = watch(epochs=3, of=float)
    assert [entry["step"] for entry in history] == [5, 10, 15]
    for k, entry in enumerate(history):
        steps = range(5 * k, 5 * k + 5)
        assert entry["loss"] == pytest.approx(sum(weights[i] + i + 1 for i in steps) / 5, rel=1e-6)


def test_history_of_steps_has_about_twenty_entries():
    _, _, weights, history = watch(epochs=None, steps=210, of=float)
    assert [entry["step"] for entry in history] == list(range(10, 211, 10))
    for entry in history:
        steps = range(entry["step"] - 10, entry["step"])
        assert entry["loss"] == pytest.approx(sum(weights[i] + i + 1 for i in steps) / 10, rel=1e-5)


def test_history_ends_at_the_last_step():
    _, _, weights, history = watch(epochs=None, steps=47, of=float)
    assert [entry["step"] for entry in history] == [*range(2, 47, 2), 47]
    assert history[-1]["loss"] == pytest.approx(weights[46] + 47, rel=1e-6)  # of one step alone


def test_history_holds_the_parts_and_what_after_epoch_returns():
    calls = iter(range(10))
    _, history = fit(after_epoch=lambda: {"call": next(calls)})
    assert [entry["call"] for entry in history] == [0, 1, 2]
    assert all(entry["absolute"] > 0 for entry in history)
    assert all(type(entry[key]) is float for entry in history for key in ("loss", "absolute"))


# ---- a loss that is no number


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("at", [1, 3, 5, 14, 15])
def test_a_loss_that_is_no_number_stops_by_the_end_of_its_epoch(bad, at):
    with pytest.raises(UserError) as caught:
        watch(epochs=3, of=lambda step: bad if step == at else 0.0)
    message = str(caught.value)
    assert message.startswith("watch: the loss is NaN or infinite by step ") and "\n" not in message
    assert at <= int(message.split("by step ")[1].split(";")[0]) <= 5 * math.ceil(at / 5)
    assert "0.01" in message  # the learning rate to try below


def test_a_loss_that_is_no_number_stops_a_long_epoch_early():
    batches = []

    def of(step):
        batches.append(step)
        return float("nan") if step == 3 else 0.0

    with pytest.raises(UserError, match=f"by step {training.CHECK_EVERY};"):
        watch(n=1000, batch_size=1, of=of)
    assert len(batches) == training.CHECK_EVERY


def test_after_epoch_does_not_see_a_broken_model():
    with pytest.raises(UserError):
        watch(of=lambda step: float("nan"), after_epoch=lambda: pytest.fail("called after NaN"))


def test_a_held_out_number_that_is_none_stops_too():
    with pytest.raises(UserError, match="watch: .*NaN or infinite by step 5"):
        watch(epochs=3, after_epoch=lambda: {"held_out": float("nan")})
