"""How commands start, stop and fail: exit codes, signals, locks, in processes of their own."""

import ast
import contextlib
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from multiprocessing import forkserver
from pathlib import Path

import pytest
import torch

from ebmvae import command
from ebmvae.core import artifacts, checkpoints, random, training
from ebmvae.core.messages import Stopped, UserError

ROOT = Path(__file__).parents[2]
CONTEXT = multiprocessing.get_context("forkserver")  # torch is loaded once for all processes


@pytest.fixture(scope="module", autouse=True)
def server():
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", f"{ROOT}:{Path(__file__).parent}")
        CONTEXT.set_forkserver_preload([__name__, "torch._dynamo"])  # which Adam loads
        forkserver.ensure_running()


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def train(pause=0.0):
    """A stage: 40 optimiser steps, each after `pause` seconds; then it writes its outputs."""
    with command.exclusive("stage"):
        with random.seeded("stage"):
            model = torch.nn.Linear(3, 1)
        rng = random.generator("cpu", 0)

        def loss(index, progress):
            Path("began").touch()
            time.sleep(pause)
            x = torch.randn(8, 3, generator=rng)
            return (model(x)[:, 0] - x[:, 0]).square().mean(), {}

        settings = training.Settings(batch_size=8, learning_rate=0.1, epochs=4)
        history = training.train("stage", model, loss, 80, settings, rng, {})
        with artifacts.together():
            artifacts.save_module("out/model.safetensors", model)
            artifacts.save_json("out/history.json", history)


def wait_and_clean_up(seconds):
    """Something that is no training, and takes its time to end."""
    with command.exclusive("stage"):
        try:
            Path("began").touch()
            time.sleep(60)
        finally:
            Path("ending").touch()
            time.sleep(seconds)


def orphan():
    """Start a `train` that outlives this process."""
    if os.fork() == 0:
        Path("pid").write_text(str(os.getpid()))
        train(60)
        os._exit(0)
    time.sleep(60)


def fail(kind):
    raise {"user": UserError("x.json: missing\nor so"), "bug": ZeroDivisionError("a bug")}[kind]


def process(cwd, streams, environment, function, *arguments):
    """`command.run` as a script has it."""
    os.chdir(cwd)
    os.environ.update(environment)
    for number, file in streams.items():
        os.dup2(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
    command.run(lambda: function(*arguments))


@contextlib.contextmanager
def started(function, *arguments, streams=None, **environment):
    """A process that runs `function`, its stderr in the file `stderr`; ended with the block."""
    Path("stderr").touch()
    streams = {2: "stderr", **(streams or {})}
    Path("began").unlink(missing_ok=True)
    arguments = (Path.cwd(), streams, environment, function, *arguments)
    child = CONTEXT.Process(target=process, args=arguments)
    child.start()
    try:
        yield child
    finally:
        child.kill()
        child.join()


def finish(function, *arguments, **options):
    """Exit code and stderr of a process that runs `function`."""
    with started(function, *arguments, **options) as child:
        return end(child)


def end(child, within=20):
    child.join(within)
    return child.exitcode, Path("stderr").read_text()


def wait_for(condition):
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def began():
    return Path("began").exists()


def outputs():
    return {file.name: file.read_bytes() for file in Path("out").glob("*")}


@pytest.fixture(scope="module")
def undisturbed(server, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("undisturbed"))
        code, err = finish(train)
        assert code == 0 and not checkpoints.path("stage").exists(), err
        return outputs()


def test_a_user_error_is_one_line_and_2():
    assert finish(fail, "user") == (2, "error: x.json: missing or so\n")


def test_a_bug_shows_its_traceback_and_1():
    code, err = finish(fail, "bug")
    assert code == 1 and "Traceback" in err and "in fail" in err and "ZeroDivisionError" in err


WINDOWS = "import runpy, sys; sys.modules['fcntl'] = None; sys.argv[1:] = []; "


@pytest.mark.parametrize(
    "code",
    [
        "from ebmvae import command; command.run(print)",
        "runpy.run_module('stages.encode', run_name='__main__')",
        "runpy.run_module('tools.modalities', run_name='__main__')",
    ],
)
def test_a_system_without_locks_of_unix_is_one_line(code):
    """Windows has no fcntl."""
    words = [sys.executable, "-c", WINDOWS + code]
    done = subprocess.run(words, cwd=ROOT, text=True, capture_output=True)
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.startswith("error: ") and "WSL" in done.stderr
    assert done.stderr.count("\n") == 1


UNIX = {"fcntl", "grp", "posix", "pty", "pwd", "resource", "syslog", "termios", "tty"}


def test_nothing_else_that_users_run_wants_unix_at_import():
    """Else a traceback would come before that line; and no module but benchmarks asks for cores."""
    folders = ("ebmvae", "stages", "tools", "cluster", "benchmarks")
    for file in (file for folder in folders for file in (ROOT / folder).rglob("*.py")):
        tree = ast.parse(file.read_text())
        imports = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
        names = {alias.name for node in imports for alias in node.names}
        assert not UNIX & names or file.name == "timed.py", file
        asks = "os.sched_getaffinity(" in file.read_text()
        assert not asks or file == ROOT / "benchmarks/workspace.py", file


def test_a_message_that_nobody_can_read_is_no_matter(undisturbed):
    assert finish(train, streams={2: "/dev/full"})[0] == 0 and outputs() == undisturbed


@pytest.mark.parametrize("signum, code", [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_ends_a_training_after_a_last_checkpoint(undisturbed, signum, code):
    with started(train, 0.05) as child:
        wait_for(began)
        os.kill(child.pid, signum)
        exitcode, err = end(child, within=10)
    assert exitcode == code and "Traceback" not in err, err
    assert checkpoints.path("stage").exists() and not outputs()
    code, err = finish(train)
    assert code == 0 and "going on from step" in err
    assert outputs() == undisturbed and not checkpoints.path("stage").exists()


def test_a_signal_elsewhere_ends_it_at_once():
    with started(wait_and_clean_up, 0) as child:
        wait_for(began)
        os.kill(child.pid, signal.SIGTERM)
        exitcode, err = end(child, within=10)
    assert exitcode == 143 and "Traceback" not in err and Path("ending").exists()


@pytest.mark.parametrize("function", [train, wait_and_clean_up])
@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_more_signals_end_it_whatever_it_does(function, signum):
    with started(function, 60) as child:
        wait_for(began)
        while child.is_alive():  # in the middle of a step, or cleaning up
            with contextlib.suppress(ProcessLookupError):
                os.kill(child.pid, signum)
            child.join(0.2)
    assert child.exitcode == -signum


def test_sigkill_loses_at_most_an_interval(undisturbed):
    with started(train, 0.01, CHECKPOINT_SECONDS="0") as child:
        wait_for(checkpoints.path("stage").exists)
        child.kill()
        child.join()
    code, err = finish(train)
    assert code == 0 and "going on from step" in err and outputs() == undisturbed


def test_an_orphan_keeps_the_lock_until_it_ends(undisturbed):
    """As when `dvc repro` is killed and leaves its stage running."""
    with started(orphan) as parent:
        wait_for(began)
        parent.kill()
    try:
        code, err = finish(train, LOCK_SECONDS="0.3")
        last = err.splitlines()[-1]
        assert code == 2 and last.startswith("error: stage: ") and "stage.lock" in last
        assert not began() and "Traceback" not in err
    finally:
        threading.Timer(1, os.kill, (int(Path("pid").read_text()), signal.SIGKILL)).start()
    start = time.monotonic()
    assert finish(train)[0] == 0 and outputs() == undisturbed
    assert time.monotonic() - start > 0.9  # it waited


def test_what_a_lock_needs(monkeypatch):
    with command.exclusive("train_vae", "m1"), command.exclusive("train_vae", "m2"):
        assert Path(".checkpoints/train_vae m1.lock").exists()
    for value in ("soon", "", "-1"):
        monkeypatch.setenv("LOCK_SECONDS", value)
        with pytest.raises(UserError, match="LOCK_SECONDS"), command.exclusive("stage"):
            pass
    shutil.rmtree(checkpoints.FOLDER)
    checkpoints.FOLDER.write_text("a file")
    with pytest.raises(UserError, match="^.checkpoints/stage.lock: "), command.exclusive("stage"):
        pass


def test_checkpoints_go_when_the_stage_has_succeeded_and_not_before():
    with pytest.raises(Stopped), command.exclusive("stage"):
        checkpoints.save("stage", "mark", {}, {})
        raise Stopped(signal.SIGTERM)
    assert checkpoints.path("stage").exists()
    with command.exclusive("stage"):
        assert checkpoints.path("stage").exists()
    assert not checkpoints.path("stage").exists()
