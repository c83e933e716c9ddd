"""A sweep by DVC's own queue: Langevin steps x step size of the paper's sampler, table and plot.

    python -m tools.sweep --steps 20,40,80 --step-size 0.3,0.45 --jobs 2

Only the EBM's evaluation and the report run for a point. Afterwards: `dvc exp show`,
`dvc exp apply NAME`, `dvc exp remove -A`.
"""

import io
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure
from tqdm import tqdm

from ebmvae import command
from ebmvae.core import artifacts
from ebmvae.core.messages import UserError
from ebmvae.reporting import figures

STEPS, SIZE = "ebm.langevin_steps", "ebm.step_size"
SHOWN = ("m3_coherence", "m3_distance", "mean_coherence", "mean_distance")  # eb_mvae's metrics
AVERAGES = {"m3": "m3 given all others", "mean": "mean over the grid"}


def main():
    parser = command.parser(__doc__)
    parser.add_argument("--steps", default="20,40,80", help=f"values of {STEPS} (20,40,80)")
    parser.add_argument("--step-size", default="0.3,0.45", help=f"values of {SIZE} (0.3,0.45)")
    parser.add_argument("--jobs", type=int, default=2, help="points at once (2)")
    parser.add_argument("--out", type=Path, default=Path("dvc_plots/sweep.png"))
    args = parser.parse_args()
    if "up to date" not in dvc("status"):
        raise UserError(
            "`dvc status` is not clean: `make repro` first, so that a point runs one evaluation"
        )
    begun = time.monotonic()
    names = queue(args.steps, args.step_size)
    print(f"sweep: {len(names)} points, {args.jobs} at once", flush=True)
    dvc("queue", "start", "--jobs", str(args.jobs))
    wait(names)
    table = gather(names)
    print(table.to_string(index=False))
    seconds = (time.monotonic() - begun) / len(names)
    print(f"sweep: {seconds:.0f} s per point; `dvc exp show --only-changed` has all of it")
    buffer = io.BytesIO()
    with figures.by_default():
        plot(table).savefig(buffer, format="png", dpi=100)
    artifacts.write(args.out, buffer.getvalue(), checksum=False)
    print(f"sweep: {args.out}")


def dvc(*arguments):
    """Standard output of a DVC command; raises `UserError` with its last line where it fails."""
    done = subprocess.run(["dvc", *arguments], capture_output=True, text=True)
    if done.returncode:
        last = (done.stderr or done.stdout).strip().splitlines()[-1:]
        raise UserError(f"`dvc {' '.join(arguments)}`: {' '.join(last)}")
    return done.stdout


def queue(steps, sizes):
    """Queue an experiment for every pair of the values ("20,40", "0.3"); returns their names."""
    output = dvc("exp", "run", "--queue", "-S", f"{STEPS}={steps}", "-S", f"{SIZE}={sizes}")
    begin = "Queued experiment '"
    return [line.split("'")[1] for line in output.splitlines() if line.startswith(begin)]


def wait(names, pause=2):
    """Return when none of the experiments is queued or running; raises `UserError` for failed ones.

    pause: seconds between two looks at the queue.
    """
    bar = tqdm(total=len(names), desc="sweep", unit="point", disable=not sys.stderr.isatty())
    with bar:
        while True:
            rows = [line.split() for line in dvc("queue", "status").splitlines()]
            states = {row[1]: row[-1] for row in rows if len(row) > 2 and row[1] in names}
            ended = [name for name in names if states.get(name) not in ("Queued", "Running")]
            bar.update(len(ended) - bar.n)
            if len(ended) == len(names):
                break
            time.sleep(pause)
    if failed := [name for name in names if states.get(name) == "Failed"]:
        raise UserError(f"{', '.join(failed)} failed; `dvc queue logs {failed[0]}` shows why")


def gather(names):
    """One row per point: name, steps, step size and the metrics SHOWN, by steps and step size."""
    frame = pd.read_csv(io.StringIO(dvc("exp", "show", "--csv", "--no-pager")))
    metrics = {f"eb_mvae.{metric}": metric for metric in SHOWN}
    columns = {"Experiment": "name", STEPS: "steps", SIZE: "step_size", **metrics}
    if missing := sorted(columns.keys() - frame.columns):
        raise UserError(
            f"`dvc exp show` lacks {', '.join(missing)}; was metrics.json made by this code?"
        )
    frame = frame[frame["Experiment"].isin(names)]
    if len(frame) < len(names):
        raise UserError("`dvc exp show` lacks points of the sweep; `dvc queue status` shows them")
    return frame[list(columns)].rename(columns=columns).sort_values(["steps", "step_size"])


def plot(table):
    """Coherence and distance of m3 and of the whole grid against steps, one line per step size."""
    figure = Figure(figsize=(8.8, 5.5), layout="constrained")
    axes = figure.subplots(2, 2, sharex=True)
    for column, metric in enumerate(("coherence", "distance")):
        for row, (average, title) in enumerate(AVERAGES.items()):
            axis = axes[row, column]
            for size, points in table.groupby("step_size"):
                label = f"step size {size:g}"
                axis.plot(points["steps"], points[f"{average}_{metric}"], "o-", label=label)
            axis.set_title(f"{title}: {metric}", fontsize=9)
            axis.set_xlabel("Langevin steps", fontsize=8)
            axis.grid(alpha=0.25)
    axes[0, 0].legend(fontsize=8, frameon=False)
    return figure


if __name__ == "__main__":
    command.run(main)
