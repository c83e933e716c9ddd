"""The stages. Who started this process is noted before anything else is loaded, which takes seconds: it may be gone by then."""

import os
import signal
import sys


def parent_of(pid):
    """The number of its parent's process, None where it is gone or there is no /proc."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            return int(file.read().rpartition(")")[2].split()[1])  # a program's name may hold blanks
    except OSError:
        return None


def started_by_dvc(pid):
    """Whether DVC's variables are in the environment that process `pid` was started with."""
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:
            return b"DVC_STAGE=" in file.read()
    except OSError:
        return False


def parents():
    """The processes above this one up to DVC, the nearest first. A shell (dash as /bin/sh) or torchrun may stand between."""
    found = [os.getppid()]
    while started_by_dvc(found[-1]) and (above := parent_of(found[-1])):
        found.append(above)
    return found


# Of the processes that torchrun starts for one training (lib/parallel.py); else one alone, whatever else has set one of the two.
PROCESSES = int(os.environ["WORLD_SIZE"]) if os.environ.get("RANK") and os.environ.get("WORLD_SIZE") else 1
RANK = int(os.environ["RANK"]) if PROCESSES > 1 else 0
PARENTS = parents() if "DVC_STAGE" in os.environ else []
if sys.argv[:1] == ["-m"]:  # a stage's command, still loading: Ctrl-C ends it without a traceback, until `runtime.run` takes over
    signal.signal(signal.SIGINT, signal.SIG_DFL)
