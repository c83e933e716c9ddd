"""What a Slurm job of `cluster.submit` does: its own clone, one stage, results to the remote.

Signals (seen on Slurm 22.05): SIGKILL to the step ends all of this, and the batch script, which
lives on, has the job queued again. SIGUSR2, before the time is up, comes to submitit, which calls
`again`. Of a node that is lost Slurm takes care itself.
"""

import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

from ebmvae.core import artifacts

# Seconds to wait for the lock of an earlier start, on a node that was taken for lost and still
# runs; Slurm's limit comes first.
PATIENCE = "86400"
_running = []  # the command that is running, for `stop`


def run(folder, stage, branch):
    """Make `stage` from `branch` of RUN/project; `folder` is RUN/jobs/NAME.

    Every start has a clone of its own: on a node that was taken for lost, an earlier one may still
    be writing into its. Only the checkpoints are the job's, and the lock beside them keeps two
    starts apart. Raises `SystemExit` where a command fails.
    """
    folder = Path(folder)
    begun = time.time()
    note(folder, "running", begun)
    start = [os.environ.get(f"SLURM_{name}", "0") for name in ("JOB_ID", "RESTART_COUNT")]
    clone = folder / f"clone-{'-'.join(start)}"
    shutil.rmtree(clone, ignore_errors=True)
    project = folder.parents[1] / "project"
    words = ["git", "clone", "--quiet", "--branch", branch, str(project), str(clone)]
    execute(folder, begun, *words)
    shutil.copy(project / ".dvc/config.local", clone / ".dvc/config.local")
    (folder / "checkpoints").mkdir(exist_ok=True)
    (clone / ".checkpoints").symlink_to(folder / "checkpoints")
    dvc = [sys.executable, "-m", "dvc"]
    # Without --single-item: the clone has nothing of what comes before, and DVC restores it.
    execute(folder, begun, *dvc, "repro", "--pull", stage, cwd=clone)
    execute(folder, begun, *dvc, "push", "--run-cache", stage, cwd=clone)
    note(folder, "done", begun)
    for clone in folder.glob("clone-*"):
        shutil.rmtree(clone, ignore_errors=True)  # what it made is in the remote


def execute(folder, begun, *words, cwd=None):
    """Run a command in a process group of its own that SIGUSR2 does not end.

    A failure is noted in `folder`; then `SystemExit` is raised.
    """
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    process = subprocess.Popen(
        words,
        cwd=cwd,
        env={**os.environ, "PATH": path, "LOCK_SECONDS": PATIENCE},
        process_group=0,
        preexec_fn=lambda: signal.signal(signal.SIGUSR2, signal.SIG_IGN),
    )
    _running[:] = [process]
    code = process.wait()
    _running.clear()
    if code == -signal.SIGTERM:  # to all of the job, which is cancelled or pre-empted
        # Ending now would count as having failed.
        print("job: SIGTERM, waiting for Slurm to end this job", flush=True)
        time.sleep(600)
    if code:
        note(folder, "failed", begun)
        left = f"the clone is left in {cwd or folder}"
        raise SystemExit(f"job: `{' '.join(words)}` ended with {code}; {left}")


def stop():
    """End the command that is running, in a signal handler.

    By SIGINT, at which DVC waits for the stage, which keeps a checkpoint. Not by `Popen.wait`: the
    signal came in there, and it would wait for its own lock.
    """
    for process in _running:
        os.killpg(process.pid, signal.SIGINT)
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)


def again(*arguments):
    """What submitit calls when the time is up or the job is pre-empted.

    Stops the command and returns what to call at the next start.
    """
    from submitit.helpers import DelayedSubmission

    stop()
    return DelayedSubmission(run, *arguments)


run.checkpoint = again


def note(folder, state, begun):
    """Write `folder`/state.json, which `cluster.status` reads where Slurm knows the job no longer.

    state: running, done or failed. begun: seconds since 1970.
    """
    content = {
        "state": state,
        "node": os.environ.get("SLURMD_NODENAME", platform.node()),
        "begun": begun,
        "at": time.time(),
        "starts": int(os.environ.get("SLURM_RESTART_COUNT", 0)) + 1,
    }
    artifacts.write(folder / "state.json", json.dumps(content).encode(), checksum=False)
