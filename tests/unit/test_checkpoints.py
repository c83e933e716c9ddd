"""Checkpoints: resumed equals undisturbed, bit for bit; what is foreign is ignored."""

import hashlib
import json
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from ebmvae import command, methods, params
from ebmvae.core import artifacts, checkpoints, code, training
from ebmvae.core.messages import UserError
from ebmvae.core.random import generator, seeded

X = torch.randn(50, 3, generator=torch.Generator().manual_seed(0))
Y = X @ torch.tensor([1.0, -2.0, 0.5]) + 1
STEPS = 24  # 6 per epoch
PARAMS = {"beta": 0.1}


class Killed(Exception):
    pass


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(artifacts, "verified", {})


def fit(killed_at=None, name="fit", params=None):
    """A small network in channels_last with dropout and batch normalisation.

    It ends without a word before step `killed_at`. Returns its state, the history and the number
    of steps that were done here.
    """
    with seeded("fit"):
        model = torch.nn.Sequential(
            torch.nn.Unflatten(1, (3, 1, 1)),
            torch.nn.Conv2d(3, 8, 3, padding=1),
            torch.nn.Flatten(),
            torch.nn.BatchNorm1d(8),
            torch.nn.Dropout(0.3),
            torch.nn.Linear(8, 1),
        ).to(memory_format=torch.channels_last)
        steps = 0

        def loss(index, progress):
            nonlocal steps
            steps += 1
            if steps == killed_at:
                raise Killed
            error = model(X[index])[:, 0] - Y[index]
            return error.square().mean(), {"absolute": error.abs().mean()}

        settings = training.Settings(8, 0.01, epochs=4, lr_schedule="cosine")
        rng, more = generator("cpu", 0), {"after_epoch": lambda: {"call": 1}}
        history = training.train(name, model, loss, len(X), settings, rng, params or PARAMS, **more)
    return model.state_dict(), history, steps


def kill(step=3, interval="0", **options):
    """The checkpoint of a training that is killed before `step`, with one after every step."""
    with pytest.MonkeyPatch.context() as patch, pytest.raises(Killed):
        patch.setenv("CHECKPOINT_SECONDS", interval)
        fit(step, **options)
    return checkpoints.path("fit")


def assert_same(a, b):
    assert all(torch.equal(a[0][key], b[0][key]) for key in a[0])
    assert json.dumps(a[1]) == json.dumps(b[1])  # the order of keys too


@pytest.mark.parametrize("kills", [[1], [2], [6], [7], [13], [2] * 12])
def test_resumed_equals_undisturbed_bit_for_bit(kills):
    for step in kills:
        kill(step)
    resumed = fit()
    assert resumed[2] == STEPS - sum(step - 1 for step in kills)  # nothing was done twice
    assert_same(resumed, fit(name="undisturbed"))


def test_the_interval(monkeypatch):
    assert not kill(20, interval="1000").exists()
    for value in ("soon", "", "-1", "nan"):
        monkeypatch.setenv("CHECKPOINT_SECONDS", value)
        with pytest.raises(UserError, match="CHECKPOINT_SECONDS"):
            fit()


def test_a_finished_training_is_kept_until_its_stage_is_cleared():
    first, again = fit(name="stage m1"), fit(name="stage m1")
    assert again[2] == 0
    assert_same(again, first)
    for name in ("stage", "stages", "other stage"):
        fit(name=name)
    checkpoints.clear("stage")
    left = sorted(file.name for file in checkpoints.FOLDER.iterdir())
    assert left == ["other stage.checkpoint", "stages.checkpoint"]


def test_the_checkpoint_before_a_nan_is_the_last_good_one(monkeypatch):
    monkeypatch.setenv("CHECKPOINT_SECONDS", "0")
    weight, values = torch.nn.Parameter(torch.zeros(())), iter([1.0, 1.0, float("nan"), 1.0])

    def loss(index, progress):
        return weight * next(values), {}

    settings, rng = training.Settings(8, 0.1, epochs=9), generator("cpu", 0)
    with pytest.raises(UserError, match="^nan: .* 3;"):
        training.train("nan", torch.nn.ParameterList([weight]), loss, 8, settings, rng, PARAMS)
    tensors, about = checkpoints.load("nan", mark())
    assert about["done"] == 2 and torch.isfinite(tensors["model/0"])


def test_a_checkpoint_of_other_parameters_is_ignored(capsys):
    kill()
    assert fit(params={"beta": 0.2})[2] == STEPS
    assert "\nfit: " in "\n" + capsys.readouterr().err


def mark(params=None):
    return checkpoints.fingerprint(params or PARAMS, torch.device("cpu"), "ieee")


def test_the_fingerprint_follows_from_parameters_data_and_threads(monkeypatch):
    marks = [mark(), mark({"beta": 0.2})]
    for digest in ("a", "b"):
        monkeypatch.setitem(artifacts.verified, "latents/train.safetensors", digest)
        marks.append(mark())
    threads = torch.get_num_threads()
    torch.set_num_threads(threads + 1)
    marks.append(mark())
    torch.set_num_threads(threads)
    assert len(set(marks)) == len(marks) and marks[3] == mark()


def test_the_fingerprint_follows_from_loaded_code(tmp_path, monkeypatch):
    """Not from code that is not loaded, nor from what lies outside ebmvae/ and stages/."""
    monkeypatch.setattr(code, "ROOT", tmp_path)
    loaded = ("ebmvae/core/a.py", "stages/b.py", "tools/c.py")
    for name in (*loaded, "stages/d.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("1")
    for name in loaded:
        monkeypatch.setitem(sys.modules, name, SimpleNamespace(__file__=str(tmp_path / name)))
    for name in (*loaded, "stages/d.py"):
        before = mark()
        (tmp_path / name).write_text("2")
        assert (mark() != before) == (name in loaded[:2])


def test_the_fingerprint_does_not_follow_from_parameter_types_commands_and_methods():
    files = {Path(module.__file__) for module in (training, params, command, methods)}
    counted = {code.ROOT / name for name in code.loaded()} & files
    assert counted == {Path(training.__file__)}


def test_digests_of_folders_leave_out_an_editors_lock(tmp_path, monkeypatch):
    """Emacs puts a link to nowhere beside a file that is being edited."""
    monkeypatch.setattr(code, "ROOT", tmp_path)
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "b.py").write_text("1")
    (tmp_path / "a" / ".#b.py").symlink_to("someone@somewhere.1:2")
    assert code.digests(["a", "none.py"]) == {"a/b.py": hashlib.sha256(b"1").hexdigest()}


def assert_set_aside(file, content, capsys):
    """`content` is no checkpoint: it is kept aside, and a line says where."""
    file.write_bytes(content)
    assert checkpoints.load("fit", "any mark") is None and not file.exists()
    assert f"{file}.damaged" in capsys.readouterr().err
    assert Path(f"{file}.damaged").read_bytes() == content


def test_a_flipped_bit_or_a_cut_is_never_trusted(capsys):
    file = kill()
    whole, rng = file.read_bytes(), torch.Generator().manual_seed(0)
    for bit in range(100):
        content = bytearray(whole)
        content[int(torch.randint(len(whole), (), generator=rng))] ^= 1 << bit % 8
        assert_set_aside(file, bytes(content), capsys)
    for share in (0, 0.01, 0.5, 0.99):
        assert_set_aside(file, whole[: int(share * len(whole))], capsys)
    for other in (b"", b"no safetensors", (2**63).to_bytes(8, "little") + b"{}"):
        content = hashlib.sha256(other).hexdigest().encode() + other  # a right digest
        assert_set_aside(file, content, capsys)
    file.write_bytes(content)
    assert fit()[2] == STEPS  # the training starts anew


def test_a_checkpoint_that_cannot_be_read_and_leftovers_of_a_torn_write():
    file = kill()
    torn = file.with_name(f".{file.name}.tmp123")
    torn.write_bytes(b"half")
    assert fit()[2] == STEPS - 2 and not torn.exists()
    file.unlink()
    file.mkdir()
    with pytest.raises(UserError, match=f"^{file}: "):
        fit()
