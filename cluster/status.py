"""How the jobs of `cluster.submit` are doing: a line a job, in the order of the DAG.

    python -m cluster.status [--run paper-1a2b3c4]

From squeue and the files that jobs write; Slurm's accounting, which many clusters lack, is not asked.
"""

import argparse
import json
import os
import shutil
import subprocess
import time
from pathlib import Path

from stages.lib import runtime
from stages.lib.runtime import UserError, relative

SHARED = Path(".cluster")  # on a file system that all nodes see: runs, a folder each


def main():
    asked = arguments(__doc__).parse_args()
    run = find(asked.shared, asked.run)
    jobs = states(run)
    done = [each for each in jobs.values() if each["state"] == "done"]
    print(f"{run.name}: {len(done)} of {len(jobs)} done")
    rows = [("job", "state", "node", "minutes", "starts", "id", "after")]
    rows += [(name, each["state"], each["node"], each["minutes"], each["starts"], each["id"], ", ".join(each["after"]) or "-")
             for name, each in jobs.items()]
    show(rows)
    for name, each in jobs.items():
        if each["state"] in ("failed", "lost"):
            print(f"{name} {each['state']}: {each['log']}")


def arguments(description):
    """The arguments of `cluster.status` and `cluster.gather`, as a parser."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shared", type=Path, default=SHARED, help=f"as given to cluster.submit ({SHARED})")
    parser.add_argument("--run", help="name of the run, as cluster.submit printed it; without it, the latest")
    return parser


def find(shared, name=None):
    """Folder of the run `name`, or of the latest; raises `UserError` where there is none."""
    runs = sorted(Path(shared).absolute().glob("*/run.json"), key=lambda file: file.stat().st_mtime)
    found = [file.parent for file in runs if name in (None, file.parent.name)]
    if not found:
        known = f"; there are {', '.join(file.parent.name for file in runs)}" if runs else "; `python -m cluster.submit` makes one"
        raise UserError(f"{shared}: no run {name or 'there'}{known}")
    return found[-1]


def read(run):
    """What cluster.submit noted of a run: {"commit", "profile", "seeds", "jobs": {name: {"stage", "seed", "after", "id"}}}."""
    try:
        return json.loads((run / "run.json").read_text())
    except (OSError, ValueError) as error:
        raise UserError(f"{relative(run / 'run.json')}: can't be read ({error}); submit again") from None


def states(run):
    """{job: its entry of run.json, and "state", "node", "minutes", "starts", "log"} in the order of the DAG.

    state: done (results are in the remote), running, waiting, failed, lost (Slurm ended it: cancelled, out of memory, out of
    time), cancelled (never started: what it needs failed).
    """
    jobs = read(run)["jobs"]
    queue = squeue([each["id"] for each in jobs.values()])
    found = {}
    for name, each in jobs.items():
        folder = run / "jobs" / name
        try:
            note = json.loads((folder / "state.json").read_text())
        except (OSError, ValueError):
            note = {}
        state, node, reason = queue.get(each["id"], (None, "", ""))
        if note.get("state") == "done":
            word = "done"
        elif state == "PENDING":
            word = "waiting" if reason in ("Dependency", "None", "") else f"waiting ({reason})"
        elif state:
            word = "running"
        else:
            word = {"failed": "failed", "running": "lost"}.get(note.get("state"), "cancelled")
        minutes = f"{((time.time() if word == 'running' else note['at']) - note['begun']) / 60:.1f}" if note else ""
        found[name] = {**each, "state": word, "node": node or note.get("node", ""), "minutes": minutes, "starts": note.get("starts", ""),
                       "log": relative(folder / f"{each['id']}_0_log.out")}
    return found


def squeue(ids):
    """{id: (state, node, reason)} of those jobs that Slurm has queued or running; empty without Slurm."""
    if not shutil.which("squeue"):
        return {}
    done = subprocess.run(["squeue", "--noheader", "--user", str(os.getuid()), "--format", "%i|%T|%N|%r"], capture_output=True, text=True)
    if done.returncode:
        raise UserError(f"squeue: {' '.join(done.stderr.strip().splitlines()[-1:])}; is Slurm up?")
    lines = [line.split("|") for line in done.stdout.splitlines()]
    return {line[0]: tuple(line[1:]) for line in lines if line[0] in ids}


def show(rows):
    """Print rows of equally many values in columns."""
    widths = [max(len(str(row[k])) for row in rows) for k in range(len(rows[0]))]
    for row in rows:
        print("  " + "  ".join(str(value).ljust(width) for value, width in zip(row, widths)).rstrip())


if __name__ == "__main__":
    runtime.run(main)
