"""What a Slurm job of `cluster.submit` does: its own clone, one stage, results to the remote.

Signals (seen on Slurm 22.05): SIGKILL to the step ends all of this, and the batch script, which lives on, has the job queued again;
SIGUSR2, before the time is up, comes to submitit, which calls `again`; of a node that is lost Slurm takes care itself.
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

from stages.lib import artifacts

PATIENCE = "86400"  # seconds to wait for the lock of a start on a node that was taken for lost and still runs; Slurm's limit comes first
_running = []  # the command that is running, for `again`


def run(folder, stage, branch):
    """Make `stage` from `branch` of RUN/project; `folder` is RUN/jobs/NAME. Raises `SystemExit` where a command fails.

    Every start has a clone of its own: on a node that was taken for lost, an earlier one may still be writing into its.
    Only the checkpoints are the job's, and the lock beside them keeps two starts apart.
    """
    folder = Path(folder)
    begun = time.time()
    note(folder, "running", begun)
    clone = folder / f"clone-{os.environ.get('SLURM_JOB_ID', 0)}-{os.environ.get('SLURM_RESTART_COUNT', 0)}"
    shutil.rmtree(clone, ignore_errors=True)
    project = folder.parents[1] / "project"
    command(folder, begun, "git", "clone", "--quiet", "--branch", branch, str(project), str(clone))
    shutil.copy(project / ".dvc/config.local", clone / ".dvc/config.local")
    (folder / "checkpoints").mkdir(exist_ok=True)
    (clone / ".checkpoints").symlink_to(folder / "checkpoints")
    # Without --single-item: whatever comes before it is restored from the run cache, since the clone has none of it.
    command(folder, begun, sys.executable, "-m", "dvc", "repro", "--pull", stage, cwd=clone)
    command(folder, begun, sys.executable, "-m", "dvc", "push", "--run-cache", stage, cwd=clone)
    note(folder, "done", begun)
    for each in folder.glob("clone-*"):
        shutil.rmtree(each, ignore_errors=True)  # what it made is in the remote


def command(folder, begun, *words, cwd=None):
    """Run a command in a process group of its own that SIGUSR2 does not end; notes a failure and raises `SystemExit`."""
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "LOCK_SECONDS": PATIENCE}
    process = subprocess.Popen(words, cwd=cwd, env=environment, process_group=0,
                               preexec_fn=lambda: signal.signal(signal.SIGUSR2, signal.SIG_IGN))
    _running[:] = [process]
    code = process.wait()
    _running.clear()
    if code == -signal.SIGTERM:  # to all of the job: it is cancelled or pre-empted. Ending now would count as having failed
        print("job: SIGTERM, waiting for Slurm to end this job", flush=True)
        time.sleep(600)
    if code:
        note(folder, "failed", begun)
        raise SystemExit(f"job: `{' '.join(words)}` ended with {code}; the clone is left in {cwd or folder}")


def stop():
    """End the command that is running, in a signal handler: by SIGINT, at which DVC waits for the stage, which keeps a checkpoint.

    Not by `Popen.wait`: the signal came in there, and it would wait for its own lock.
    """
    for process in _running:
        os.killpg(process.pid, signal.SIGINT)
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)


def again(*arguments):
    """What submitit calls when the time is up or the job is pre-empted: `stop`, and say what to call at the next start."""
    from submitit.helpers import DelayedSubmission

    stop()
    return DelayedSubmission(run, *arguments)


run.checkpoint = again


def note(folder, state, begun):
    """Write `folder`/state.json: what `cluster.status` reads, where Slurm no longer knows the job."""
    content = {"state": state, "node": os.environ.get("SLURMD_NODENAME", platform.node()), "begun": begun, "at": time.time(),
               "starts": int(os.environ.get("SLURM_RESTART_COUNT", 0)) + 1}
    artifacts.write(folder / "state.json", json.dumps(content).encode(), checksum=False)
