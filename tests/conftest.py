"""The smoke run that several test files look at, made once."""

import os
import shlex
import subprocess

import pytest

from benchmarks import workspace
from tests.project import BIN, clone, commit, shell, smoke_args


@pytest.fixture(scope="session")
def pair(tmp_path_factory):
    """Two clones with a finished smoke run each, made side by side: one stage after the other by DVC, and two at once by make."""
    folders = [clone(tmp_path_factory.mktemp(name)) for name in ("first", "second")]
    for folder in folders:
        shell(folder, "git", "config", "user.name", "t")
        shell(folder, "git", "config", "user.email", "t@example.org")
    env = {**os.environ, "PATH": f"{BIN}:{os.environ['PATH']}", "OMP_NUM_THREADS": "1", "DEVICE": "cpu"}
    rules = "mkdir -p .dvc/tmp && python -m cluster.rules > .dvc/tmp/rules.mk && make --keep-going --jobs 2 --file .dvc/tmp/rules.mk"
    started = [["dvc", "exp", "run", *smoke_args()],
               ["sh", "-c", f"dvc exp run {shlex.join(smoke_args())} polymnist && {rules}"]]
    runs = [subprocess.Popen(command, cwd=folder, env=env, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
            for command, folder in zip(started, folders)]
    for run in runs:
        output, _ = run.communicate()
        assert run.returncode == 0, output[-4000:]
    return folders


@pytest.fixture(scope="session")
def finished(pair):
    """The first clone, its run committed. Tests that change files in it put them back."""
    commit(pair[0], "smoke run")
    return pair[0]


@pytest.fixture(scope="session")
def tiny(tmp_path_factory):
    """A folder with tuples and judges of the smallest size, for tests that run single stages; its params.yaml is theirs to set."""
    from tests.torture import TINY

    folder = tmp_path_factory.mktemp("tiny")
    workspace.set_params(folder, TINY)
    for stage in ("polymnist", "train_judge"):
        workspace.python(folder, f"stages.{stage}")
    return folder
