"""How the jobs of `cluster.submit` are doing: one line per job, in the order of the DAG.

    python -m cluster.status [--run paper-1a2b3c4]

From squeue and the files that jobs write; Slurm's accounting, which many clusters lack, is not
asked.
"""

import json
import os
import shutil
import subprocess
import time
from pathlib import Path

from ebmvae import command
from ebmvae.core.messages import UserError, relative

SHARED = Path(".cluster")  # on a file system that all nodes see; one folder per run
COLUMNS = ("state", "node", "minutes", "starts", "id")


def main():
    args = parser(__doc__).parse_args()
    run = find(args.shared, args.run)
    jobs = states(run)
    n_done = sum(entry["state"] == "done" for entry in jobs.values())
    print(f"{run.name}: {n_done} of {len(jobs)} done")
    rows = [("job", *COLUMNS, "after")]
    for name, entry in jobs.items():
        rows.append((name, *(entry[key] for key in COLUMNS), ", ".join(entry["after"]) or "-"))
    show(rows)
    for name, entry in jobs.items():
        if entry["state"] in ("failed", "lost"):
            print(f"{name} {entry['state']}: {entry['log']}")


def parser(description):
    """The argument parser of `cluster.status` and `cluster.gather`."""
    parser = command.parser(description)
    shared = f"as given to cluster.submit ({SHARED})"
    parser.add_argument("--shared", type=Path, default=SHARED, help=shared)
    parser.add_argument("--run", help="as cluster.submit printed it; without it, the latest")
    return parser


def find(shared, name=None):
    """Folder of the run `name`, or of the latest; raises `UserError` where there is none."""
    files = Path(shared).absolute().glob("*/run.json")
    runs = [file.parent for file in sorted(files, key=lambda file: file.stat().st_mtime)]
    matching = [run for run in runs if name in (None, run.name)]
    if not matching:
        known = f"there are {', '.join(run.name for run in runs)}"
        remedy = known if runs else "`python -m cluster.submit` makes one"
        raise UserError(f"{shared}: no run {name or 'there'}; {remedy}")
    return matching[-1]


def read(run):
    """What cluster.submit noted of a run.

    {"commit", "profile", "seeds", "stages", "jobs": {name: {"stage", "seed", "after", "id"}}}
    """
    file = run / "run.json"
    try:
        return json.loads(file.read_text())
    except (OSError, ValueError) as error:
        raise UserError(f"{relative(file)}: can't be read ({error}); submit again") from None


def states(run):
    """{job: its entry of run.json with "state", "node", "minutes", "starts" and "log"}.

    In the order of the DAG. state: see `state_of`.
    """
    jobs = read(run)["jobs"]
    queue = squeue([entry["id"] for entry in jobs.values()])
    now, entries = time.time(), {}
    for name, entry in jobs.items():
        folder = run / "jobs" / name
        try:
            note = json.loads((folder / "state.json").read_text())
        except (OSError, ValueError):
            note = {}
        slurm, node, reason = queue.get(entry["id"], (None, "", ""))
        state = state_of(slurm, reason, note.get("state"))
        minutes = ""
        if note:
            minutes = f"{((now if state == 'running' else note['at']) - note['begun']) / 60:.1f}"
        entries[name] = {
            **entry,
            "state": state,
            "node": node or note.get("node", ""),
            "minutes": minutes,
            "starts": note.get("starts", ""),
            "log": relative(folder / f"{entry['id']}_0_log.out"),
        }
    return entries


def state_of(slurm, reason, noted):
    """The state of a job, from Slurm's own (None where it knows none) and that in state.json.

    done (results are in the remote), running, waiting, failed, lost (Slurm ended it: cancelled, out
    of memory, out of time), cancelled (never started: what it needs failed).
    """
    if noted == "done":
        return "done"
    if slurm == "PENDING":
        return "waiting" if reason in ("Dependency", "None", "") else f"waiting ({reason})"
    if slurm:
        return "running"
    return {"failed": "failed", "running": "lost"}.get(noted, "cancelled")


def squeue(ids):
    """{id: (state, node, reason)} of jobs that are queued or running; empty without Slurm."""
    if not shutil.which("squeue"):
        return {}
    words = ["squeue", "--noheader", "--user", str(os.getuid()), "--format", "%i|%T|%N|%r"]
    done = subprocess.run(words, capture_output=True, text=True)
    if done.returncode:
        last = done.stderr.strip().splitlines()[-1:]
        raise UserError(f"squeue: {' '.join(last)}; is Slurm up?")
    lines = [line.split("|") for line in done.stdout.splitlines()]
    return {line[0]: tuple(line[1:]) for line in lines if line[0] in ids}


def show(rows):
    """Print rows of equally many values in columns."""
    widths = [max(len(str(value)) for value in column) for column in zip(*rows, strict=True)]
    for row in rows:
        values = [str(value).ljust(width) for value, width in zip(row, widths, strict=True)]
        print("  " + "  ".join(values).rstrip())


if __name__ == "__main__":
    command.run(main)
