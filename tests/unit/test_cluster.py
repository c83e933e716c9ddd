"""How jobs are doing, what gather refuses, and how a job's command is stopped; without Slurm."""

import json
import os
import re
import signal
import subprocess
import sys
import time

import pytest

from cluster import gather, job, status
from ebmvae.core.messages import UserError
from tests.project import ROOT

STAGE = """
import signal, sys, time
def stop(*_):
    time.sleep(.5)
    open("kept", "w")
    sys.exit(130)
signal.signal(signal.SIGINT, stop)
open("up", "w")
time.sleep(60)
"""
SUBMITIT = """
import signal, sys
from pathlib import Path
from cluster import job
def handle(*_):
    job.stop()
    sys.exit(7)
signal.signal(signal.SIGUSR2, handle)
job.execute(Path("."), 0, sys.executable, "stage.py")
"""


def test_a_command_that_is_to_stop_is_waited_for(tmp_path):
    """As submitit does it: `stop` in a handler of SIGUSR2, which does not end the command."""
    (tmp_path / "stage.py").write_text(STAGE)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    words = [sys.executable, "-c", SUBMITIT]
    process = subprocess.Popen(words, cwd=tmp_path, env=environment)
    while not (tmp_path / "up").exists():
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGUSR2)
    assert process.wait(20) == 7 and (tmp_path / "kept").exists()


def test_a_failed_command_is_noted(tmp_path):
    job.execute(tmp_path, 0, "true")
    assert not (tmp_path / "state.json").exists()
    with pytest.raises(SystemExit, match="false"):
        job.execute(tmp_path, 0, "false")
    assert json.loads((tmp_path / "state.json").read_text())["state"] == "failed"


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Makes a run of one job "a" from squeue's row (None: unknown) and state.json's state."""

    def make(row, noted):
        monkeypatch.setattr(status, "squeue", lambda ids: {"7": row} if row else {})
        folder = tmp_path / "test-1"
        (folder / "jobs/a").mkdir(parents=True)
        jobs = {"a": {"stage": "a", "seed": 0, "after": [], "id": "7"}}
        (folder / "run.json").write_text(json.dumps({"jobs": jobs}))
        if noted:
            job.note(folder / "jobs/a", noted, time.time() - 60)
        return folder

    return make


@pytest.mark.parametrize(
    "row, noted, state",
    [
        (("PENDING", "", "Dependency"), None, "waiting"),
        (("PENDING", "", "Resources"), None, "waiting (Resources)"),
        (("PENDING", "", "BeginTime"), "running", "waiting (BeginTime)"),
        (("RUNNING", "n1", "None"), "running", "running"),
        (("COMPLETING", "n1", "None"), "done", "done"),
        (None, "done", "done"),
        (None, "failed", "failed"),
        (None, "running", "lost"),
        (None, None, "cancelled"),
    ],
)
def test_states(run, row, noted, state):
    entry = status.states(run(row, noted))["a"]
    assert entry["state"] == state and entry["minutes"] == ("1.0" if noted else "")


def test_gather_names_the_job_that_failed_and_its_log(run):
    folder = run(None, "failed")
    jobs = {"before": {"state": "cancelled", "log": "none"}, **status.states(folder)}
    log = jobs["a"]["log"]
    (folder / "jobs/a/7_0_log.out").write_text("")
    with pytest.raises(UserError, match=f"a failed.*{re.escape(log)}"):
        gather.refuse_unfinished(folder, jobs)
    gather.refuse_unfinished(folder, {"a": {"state": "done"}})


def test_runs_are_found_and_missed_by_name(tmp_path):
    for k, name in enumerate(("b-1", "a-2")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "run.json").write_text("{")
        os.utime(tmp_path / name / "run.json", (k, k))
    assert status.find(tmp_path).name == "a-2" and status.find(tmp_path, "b-1").name == "b-1"
    with pytest.raises(UserError, match="b-1, a-2"):
        status.find(tmp_path, "c")
    with pytest.raises(UserError, match="run.json"):
        status.read(tmp_path / "a-2")
