"""Checkpoints: resumed equals undisturbed, bit for bit; what is of another kind is ignored, what is damaged set aside."""

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
import torch

from stages.lib import checkpoints, provenance, runtime, training
from stages.lib.runtime import UserError, generator

ROOT = Path(__file__).parent.parent
X = torch.randn(50, 3, generator=torch.Generator().manual_seed(0))
Y = X @ torch.tensor([1.0, -2.0, 0.5]) + 1


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(runtime, "_at_success", [])
    provenance.as_started.cache_clear()


class Stop(Exception):
    pass


def fit(stop_at=None, name="fit", epochs=4, seed=0):
    """A small network with a convolution in channels_last, dropout and batch normalisation; with `stop_at` it dies before
    that step without a word."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = torch.nn.Sequential(
            torch.nn.Unflatten(1, (3, 1, 1)), torch.nn.Conv2d(3, 8, 3, padding=1), torch.nn.Flatten(), torch.nn.BatchNorm1d(8),
            torch.nn.Dropout(0.3), torch.nn.Linear(8, 1)).to(memory_format=torch.channels_last)
        steps = 0

        def loss(index, progress):
            nonlocal steps
            steps += 1
            if steps == stop_at:
                raise Stop
            error = model(X[index])[:, 0] - Y[index]
            return error.square().mean(), {"absolute": error.abs().mean()}

        history = training.train(name, model, loss, len(X), batch_size=8, epochs=epochs, learning_rate=0.01,
                                 generator=generator("cpu", seed), lr_schedule="cosine", after_epoch=lambda: {"steps": 1})
    return model, history, steps


def equal(a, b):
    return all(torch.equal(a[key], b[key]) for key in a)


@pytest.mark.parametrize("stop_at", [1, 2, 6, 7, 13, 24])
def test_resumed_equals_undisturbed_bit_for_bit(stop_at, monkeypatch):
    expected, history, _ = fit(name="undisturbed")
    monkeypatch.setenv("CHECKPOINT_SECONDS", "0")  # after every step
    with pytest.raises(Stop):
        fit(stop_at=stop_at)
    model, resumed, steps = fit()
    assert steps == 24 - (stop_at - 1)  # 6 steps an epoch; nothing was done twice
    assert equal(expected.state_dict(), model.state_dict())
    assert json.dumps(resumed) == json.dumps(history)  # the order of keys too


def test_killed_many_times_over(monkeypatch):
    expected, history, _ = fit(name="undisturbed")
    monkeypatch.setenv("CHECKPOINT_SECONDS", "0")
    for _ in range(23):
        with pytest.raises(Stop):
            fit(stop_at=2)
    model, resumed, steps = fit()
    assert steps == 1 and resumed == history and equal(expected.state_dict(), model.state_dict())


def test_it_says_that_it_goes_on_and_from_where(monkeypatch, capsys):
    monkeypatch.setenv("CHECKPOINT_SECONDS", "0")
    with pytest.raises(Stop):
        fit(stop_at=5)
    fit()
    assert "fit: going on from step 4 of 24" in capsys.readouterr().err


def test_no_checkpoint_within_the_interval(monkeypatch):
    monkeypatch.setenv("CHECKPOINT_SECONDS", "1000")
    with pytest.raises(Stop):
        fit(stop_at=20)
    assert not checkpoints.path("fit").exists()


def test_a_finished_training_is_kept_until_the_stage_has_succeeded():
    expected, history, _ = fit()
    model, again, steps = fit()
    assert steps == 0 and again == history and equal(expected.state_dict(), model.state_dict())
    for action in runtime._at_success:
        action()
    assert list(runtime.SCRATCH.iterdir()) == []


def stopped(monkeypatch, at=9, **options):
    monkeypatch.setenv("CHECKPOINT_SECONDS", "0")
    with pytest.raises(Stop):
        fit(stop_at=at, **options)
    return checkpoints.path("fit")


def test_other_parameters_start_anew(monkeypatch, capsys):
    Path("params.yaml").write_text("vae: {beta: 0.1}")
    stopped(monkeypatch)
    Path("params.yaml").write_text("vae: {beta: 0.2}")
    provenance.as_started.cache_clear()  # as in a process started now
    assert fit()[2] == 24
    assert "of other parameters, data, code or device; starting anew" in capsys.readouterr().err


def test_parameters_edited_while_it_ran_are_not_those_it_ran_with(monkeypatch):
    """A stage has several trainings: one that begins after the edit still runs with what the process began with."""
    Path("params.yaml").write_text("vae: {beta: 0.1}")
    fit(name="first")
    Path("params.yaml").write_text("vae: {beta: 0.2}")
    stopped(monkeypatch)
    provenance.as_started.cache_clear()  # as in a process started now
    assert fit()[2] == 24


def test_other_data_start_anew(monkeypatch):
    from stages.lib import artifacts

    monkeypatch.setattr(artifacts, "verified", {"latents/train.safetensors": "a"})
    stopped(monkeypatch)
    artifacts.verified["latents/train.safetensors"] = "b"
    assert fit()[2] == 24


def test_another_number_of_threads_starts_anew(monkeypatch):
    stopped(monkeypatch)
    monkeypatch.setattr(runtime, "describe", lambda *_: {"threads": 64})
    assert fit()[2] == 24


@pytest.mark.parametrize("seed", range(20))
def test_a_flipped_bit_is_never_trusted(monkeypatch, capsys, seed):
    file = stopped(monkeypatch)
    content = bytearray(file.read_bytes())
    place = int(torch.randint(len(content), (), generator=torch.Generator().manual_seed(seed)))
    content[place] ^= 1 << seed % 8
    file.write_bytes(content)
    assert fit()[2] == 24
    err = capsys.readouterr().err
    assert "fit: the checkpoint is damaged" in err and "set aside as .checkpoints/fit.checkpoint.damaged" in err
    assert Path(f"{file}.damaged").read_bytes() == content


@pytest.mark.parametrize("share", [0, 0.01, 0.5, 0.99])
def test_a_truncated_checkpoint_is_set_aside(monkeypatch, capsys, share):
    file = stopped(monkeypatch)
    content = file.read_bytes()
    file.write_bytes(content[: int(share * len(content))])
    assert fit()[2] == 24
    assert "damaged" in capsys.readouterr().err


def test_a_file_with_the_right_digest_that_is_no_checkpoint(monkeypatch, capsys):
    import hashlib

    file = stopped(monkeypatch)
    for content in (b"", b"not safetensors", (2**63).to_bytes(8, "little") + b"{}"):
        file.write_bytes(hashlib.sha256(content).hexdigest().encode() + content)
        assert fit()[2] == 24
        assert "damaged" in capsys.readouterr().err


def test_an_unreadable_checkpoint_is_a_named_error(monkeypatch):
    checkpoints.path("fit").mkdir(parents=True)
    with pytest.raises(UserError, match="^.checkpoints/fit.checkpoint: can't be read"):
        fit()


@pytest.mark.parametrize("value", ["soon", ""])
def test_an_interval_that_is_no_number(monkeypatch, value):
    monkeypatch.setenv("CHECKPOINT_SECONDS", value)
    with pytest.raises(UserError, match="CHECKPOINT_SECONDS"):
        fit()


def test_a_nan_is_not_checkpointed(monkeypatch):
    monkeypatch.setenv("CHECKPOINT_SECONDS", "0")
    weight = torch.nn.Parameter(torch.zeros(()))
    values = iter([1.0, 1.0, float("nan"), 1.0])
    with pytest.raises(UserError, match="NaN or infinite by step 3"):
        training.train("nan", torch.nn.ParameterList([weight]), lambda index, progress: (weight * next(values), {}), 8,
                       batch_size=8, epochs=9, learning_rate=0.1, generator=generator("cpu", 0))
    tensors, about = checkpoints.load("nan", checkpoints.fingerprint(torch.device("cpu"), "ieee"))
    assert about["done"] == 2 and torch.isfinite(tensors["model/0"])  # the last good one


# ---- signals and locks, in processes of their own

STAGE = """
    import sys, time, torch
    sys.path.insert(0, {root!r})
    from stages.lib import artifacts, runtime, training

    def main():
        runtime.begin("stage")
        model = torch.nn.Linear(3, 1)
        torch.nn.init.zeros_(model.weight), torch.nn.init.zeros_(model.bias)
        rng = runtime.generator("cpu", 0)

        def loss(index, progress):
            if progress == 0:
                print("began", flush=True)
            time.sleep({pause})
            x = torch.randn(8, 3, generator=rng)
            return (model(x)[:, 0] - x[:, 0]).square().mean(), {{}}

        history = training.train("stage", model, loss, 80, batch_size=8, epochs=4, learning_rate=0.1, generator=rng)
        artifacts.save_module("out/model.safetensors", model)
        artifacts.save_json("out/history.json", history)

    runtime.run(main)
"""


def start(pause=0.0, **environment):
    code = textwrap.dedent(STAGE.format(root=str(ROOT), pause=pause))
    return subprocess.Popen([sys.executable, "-c", code], text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                            env={**os.environ, **environment})


def outputs():
    return {file.name: file.read_bytes() for file in sorted(Path("out").iterdir())}


def undisturbed():
    process = start()
    assert process.communicate()[1] is not None and process.returncode == 0
    expected = outputs()
    for file in Path("out").iterdir():
        file.unlink()
    assert not checkpoints.path("stage").exists()  # deleted on success
    return expected


@pytest.mark.parametrize("signum, code", [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_ends_it_within_two_seconds_after_a_last_checkpoint(signum, code):
    expected = undisturbed()
    process = start(pause=0.1)
    process.stdout.readline()
    time.sleep(1)
    asked = time.monotonic()
    process.send_signal(signum)
    _, err = process.communicate(timeout=10)
    assert time.monotonic() - asked < 2
    assert process.returncode == code, err
    assert "Traceback" not in err and "stopped at step" in err and not list(Path("out").glob("*"))
    process = start()
    _, err = process.communicate()
    assert process.returncode == 0 and "going on from step" in err
    assert outputs() == expected


def test_sigkill_loses_at_most_an_interval():
    expected = undisturbed()
    process = start(pause=0.05, CHECKPOINT_SECONDS="0")
    process.stdout.readline()
    time.sleep(1)
    process.kill()
    process.communicate()
    _, err = start().communicate()
    assert int(err.split("going on from step ")[1].split()[0]) > 1
    assert outputs() == expected


def test_a_second_process_waits_for_the_first():
    first = start(pause=0.2)
    first.stdout.readline()
    second = start()
    _, err = second.communicate()
    assert first.poll() == 0  # it had ended before the second could
    assert second.returncode == 0 and "stage: waiting for another process" in err
    first.communicate()


def test_a_second_process_that_waited_long_enough_refuses():
    first = start(pause=0.2)
    first.stdout.readline()
    second = start(LOCK_SECONDS="0.5")
    _, err = second.communicate()
    assert second.returncode == 2 and "error: stage: another process is running this stage" in err
    first.kill()
    first.communicate()


@pytest.mark.parametrize("shell", [[], ["/bin/sh", "-c", '"$@" && :', "-"]], ids=["child", "shell between"])
def test_it_stops_when_dvc_is_gone(shell):
    """A parent that dies by SIGKILL, as a killed `dvc repro` does, leaves no child that goes on writing, nor a shell's."""
    code = textwrap.dedent(STAGE.format(root=str(ROOT), pause=0.1))
    parent = subprocess.Popen([sys.executable, "-c", "import os, subprocess, time\n"
                               f"child = subprocess.Popen([*{shell}, {sys.executable!r}, '-c', {code!r}], env={{**os.environ, 'DVC_STAGE': 'stage'}})\n"
                               "time.sleep(60)"],
                              text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    parent.stdout.readline()  # began
    time.sleep(0.5)
    parent.kill()
    _, err = parent.communicate(timeout=10)  # ends when the child has closed the pipe too
    assert "DVC is gone: stopping" in err and "stopped at step" in err
    assert not list(Path("out").glob("*"))
