"""Outlives DVC, to mend what DVC was killed while writing: it writes dvc.lock in place, and then refuses its own torn file.

    python -m stages.lib.lockwatch PID        (a stage starts it; PID is DVC's)

A torn dvc.lock is set aside; what stages made is in DVC's run cache by then, so the next `dvc repro` restores it all.
"""

import contextlib
import fcntl
import json
import os
import select
import subprocess
import sys
import time
from pathlib import Path

DVC_TMP = Path(".dvc/tmp")


def start(dvc):
    """Start it for the process `dvc`, in a session of its own: signals to DVC's group don't reach it."""
    with contextlib.suppress(OSError):
        subprocess.Popen([sys.executable, "-m", __name__, str(dvc)], start_new_session=True, stdin=subprocess.DEVNULL,
                         stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def main():
    dvc = int(sys.argv[1])
    path = DVC_TMP / f"lockwatch-{dvc}"
    with open(path, "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:  # an earlier stage of this DVC has started one
            return
        wait_for_end(dvc)
        mend(Path("dvc.lock"), Path("dvc.lock.damaged"), whole, DVC_TMP / "lock")
        mend(DVC_TMP / "rwlock", DVC_TMP / "rwlock.damaged", is_json, DVC_TMP / "rwlock.lock")
        path.unlink(missing_ok=True)


def wait_for_end(pid):
    """Return when process `pid`, which need not be a child of ours, is gone."""
    try:
        select.select([os.pidfd_open(pid)], [], [])
    except ProcessLookupError:
        return
    except (AttributeError, OSError):  # no such call here
        with contextlib.suppress(ProcessLookupError):
            while True:
                os.kill(pid, 0)
                time.sleep(0.2)


def mend(file, aside, good, lock):
    """Rename `file` to `aside` unless `good(its text)`, under DVC's own `lock`: another DVC may be writing it."""
    torn = lambda: file.exists() and not good(file.read_text(errors="replace"))
    if torn():
        with open(lock, "a") as held:
            fcntl.flock(held, fcntl.LOCK_EX)  # DVC's locks are flock's too; one that starts now waits for up to 3 seconds
            if torn():
                os.replace(file, aside)


def whole(text):
    """Whether dvc.lock, from its beginning on, is there to the end: DVC would read it."""
    import yaml

    if not text.endswith("\n"):
        return False
    try:
        content = yaml.safe_load(text)
        return content["schema"] == "2.0" and all(
            isinstance(stage["cmd"], str | list) and all(isinstance(values, dict) for values in stage.get("params", {}).values())
            and all(isinstance(each["path"], str) for key in ("deps", "outs") for each in stage.get(key, []))
            for stage in content["stages"].values())
    except (yaml.YAMLError, TypeError, KeyError, AttributeError):  # None where a list was to begin
        return False


def is_json(text):
    """Whether DVC could read this as JSON."""
    try:
        return isinstance(json.loads(text), dict)
    except ValueError:
        return False


if __name__ == "__main__":
    main()
