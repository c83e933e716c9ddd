"""One training by several processes, as torchrun starts them: the losses of one; a killed process; what can't be."""

import json
import os
import signal
import subprocess
import sys
import time

import psutil
import pytest
from safetensors.torch import load_file

from benchmarks import workspace
from tests.project import ROOT
from tests.torture import TINY

# Sums of a batch are rounded in another order with another number of processes; Adam then divides by roots of them.
TOLERANCE = 1e-5  # measured: 3e-7; noise of another row moves the loss by 2e-5 only, its parts by more
TORCHRUN = ["torch.distributed.run", "--standalone", "--nproc-per-node"]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "DEVICE": "cpu"}


def start(folder, processes, *stage, **environment):
    """The stage by so many processes, running."""
    torchrun = [*TORCHRUN, str(processes), "-m"] if processes > 1 else []
    return subprocess.Popen([sys.executable, "-m", *torchrun, f"stages.{stage[0]}", *stage[1:]], cwd=folder, text=True,
                            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env={**ENVIRONMENT, **environment})


def finish(process):
    """Its exit code, and what it said."""
    output, _ = process.communicate(timeout=120)
    return process.returncode, output


def first_checkpoint(folder, process, modality):
    """The checkpoint of the running train_vae, as soon as it is there."""
    checkpoint, end = folder / f".checkpoints/train_vae {modality}.checkpoint", time.monotonic() + 60
    while not checkpoint.exists():
        assert process.poll() is None and time.monotonic() < end
        time.sleep(0.02)
    return checkpoint


def ranks(process):
    """{RANK: process} of those that torchrun, below `process`, started."""
    children = psutil.Process(process.pid).children(recursive=True)
    return {child.environ()["RANK"]: child for child in children if "RANK" in child.environ()}


def made(folder, name):
    """History and weights that a training wrote."""
    out = folder / "models" / name
    return json.loads((out / "history.json").read_text()), {file.relative_to(out): load_file(file) for file in out.rglob("*.safetensors")}


@pytest.mark.parametrize("stage, name", [(("train_vae", "m1"), "vae/m1"), (("train_baseline", "poe"), "baseline/poe"),
                                         (("train_baseline", "mopoe"), "baseline/mopoe")])
def test_two_and_four_processes_have_the_losses_of_one(tiny, stage, name):
    workspace.set_params(tiny, {**TINY, "vae.batch_size": 9})  # shares of it are not all alike
    found = {}
    for processes in (1, 2, 4) if stage[0] == "train_vae" else (1, 2):
        code, output = finish(start(tiny, processes, *stage))
        assert code == 0, output
        found[processes] = made(tiny, name)
        assert sum(f"{' '.join(stage)}: step" in line for line in output.splitlines()) == 2  # an epoch a line, said once
    history, weights = found.pop(1)
    for other_history, other_weights in found.values():
        assert [entry.keys() for entry in other_history] == [entry.keys() for entry in history] and len(history) == 2
        for one, other in zip(history, other_history):
            assert other == pytest.approx(one, rel=TOLERANCE)
        for file, tensors in weights.items():
            for key, value in tensors.items():
                assert (value - other_weights[file][key]).abs().max() < 1e-3, (file, key)


@pytest.mark.parametrize("killed, resumed_by", [(0, 1), (1, 3)])
def test_a_killed_process_ends_the_others_and_any_number_goes_on(tiny, killed, resumed_by):
    workspace.set_params(tiny, {**TINY, "vae.epochs": 6})
    out = tiny / "models/vae/m2"
    process = start(tiny, 2, "train_vae", "m2", CHECKPOINT_SECONDS="0.1")
    checkpoint = first_checkpoint(tiny, process, "m2")
    ranks(process)[str(killed)].kill()
    code, output = finish(process)
    assert code != 0 and not out.exists()
    assert "error: train_vae m2: another process of this training is gone; start it again, it goes on from its checkpoint" in output
    code, output = finish(start(tiny, resumed_by, "train_vae", "m2"))
    assert code == 0 and "train_vae m2: going on from step " in output, output
    resumed, _ = made(tiny, "vae/m2")
    assert not checkpoint.exists() and len(resumed) == 6
    for file in [*out.iterdir()]:
        file.unlink()
    out.rmdir()


@pytest.mark.parametrize("who", ["torchrun", "1"])
def test_sigterm_to_any_process_stops_all_at_one_step(tiny, who):
    """One that only hears of it from another writes no outputs either: they would be half trained."""
    workspace.set_params(tiny, {**TINY, "vae.epochs": 300})
    process = start(tiny, 2, "train_vae", "m3", CHECKPOINT_SECONDS="0.1")
    checkpoint = first_checkpoint(tiny, process, "m3")
    (process if who == "torchrun" else ranks(process)[who]).send_signal(signal.SIGTERM)
    code, output = finish(process)
    assert code != 0 and "train_vae m3: stopped at step " in output and "gone" not in output, output
    assert checkpoint.exists() and not (tiny / "models/vae/m3").exists()
    checkpoint.unlink()


@pytest.mark.parametrize("killed", ["torchrun", "dvc"])
def test_all_stop_when_torchrun_or_the_dvc_above_it_is_gone(tiny, killed):
    workspace.set_params(tiny, {**TINY, "vae.epochs": 300})
    command = [sys.executable, "-m", *TORCHRUN, "2", "-m", "stages.train_vae", "m4"]
    environment = {**ENVIRONMENT, "DVC_STAGE": "train_vae@m4", "CHECKPOINT_SECONDS": "0.1"}
    above = [sys.executable, "-c", f"import subprocess; subprocess.run({command}, env={environment})"] if killed == "dvc" else command
    process = subprocess.Popen(above, cwd=tiny, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                               env=None if killed == "dvc" else environment)
    checkpoint = first_checkpoint(tiny, process, "m4")
    process.kill()
    _, output = finish(process)  # ends when all below it have closed the pipe
    assert "train_vae m4: stopped at step " in output, output
    assert checkpoint.exists() and not (tiny / "models/vae/m4").exists()
    checkpoint.unlink()


@pytest.mark.parametrize("overrides, stage, said", [
    ({"vae.batch_size": 1}, ("train_vae", "m1"), "error: train_vae m1: a batch of 1 can't be shared by 2 processes; start at most 1"),
    ({}, ("fit_ebm",), "error: fit_ebm: runs in one process; torchrun is for train_vae and train_baseline")])
def test_what_several_processes_cannot_do(tiny, overrides, stage, said):
    workspace.set_params(tiny, {**TINY, **overrides})
    code, output = finish(start(tiny, 2, *stage))
    assert code != 0 and said in output
