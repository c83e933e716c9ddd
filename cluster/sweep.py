"""A sweep by DVC's own queue: Langevin steps x step size of the paper's sampler, then a table and a plot.

    python -m cluster.sweep --steps 20,40,80 --step-size 0.3,0.45 --jobs 2

Only the EBM's evaluation and the report run for a point. Afterwards `dvc exp show`, `dvc exp apply NAME`, `dvc exp remove -A`.
"""

import argparse
import io
import subprocess
import sys
import time
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402
import pandas as pd  # noqa: E402

from stages.lib import artifacts, runtime  # noqa: E402
from stages.lib.runtime import UserError  # noqa: E402

STEPS, SIZE = "ebm.langevin_steps", "ebm.step_size"
SHOWN = ("m3_coherence", "m3_distance", "mean_coherence", "mean_distance")  # of eb_mvae in metrics.json


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", default="20,40,80", help=f"values of {STEPS} (20,40,80)")
    parser.add_argument("--step-size", default="0.3,0.45", help=f"values of {SIZE} (0.3,0.45)")
    parser.add_argument("--jobs", type=int, default=2, help="points at once (2)")
    parser.add_argument("--out", type=Path, default=Path("dvc_plots/sweep.png"))
    asked = parser.parse_args()
    if "up to date" not in dvc("status"):
        raise UserError("`dvc status` is not clean: `make repro` first, so that a point runs nothing but an evaluation")
    begun = time.monotonic()
    queued = dvc("exp", "run", "--queue", "-S", f"{STEPS}={asked.steps}", "-S", f"{SIZE}={asked.step_size}")
    names = [line.split("'")[1] for line in queued.splitlines() if line.startswith("Queued experiment '")]
    print(f"sweep: {len(names)} points, {asked.jobs} at once", flush=True)
    dvc("queue", "start", "--jobs", str(asked.jobs))
    wait(names)
    table = gather(names)
    print(table.to_string(index=False))
    print(f"sweep: {(time.monotonic() - begun) / len(names):.0f} s a point; `dvc exp show --only-changed` has all of it")
    buffer = io.BytesIO()
    plot(table).savefig(buffer, format="png", dpi=100)
    artifacts.write(asked.out, buffer.getvalue(), checksum=False)
    print(f"sweep: {asked.out}")


def dvc(*arguments):
    """Standard output of a DVC command; raises `UserError` with the last line it said where it fails."""
    done = subprocess.run(["dvc", *arguments], capture_output=True, text=True)
    if done.returncode:
        last = (done.stderr or done.stdout).strip().splitlines()[-1:]
        raise UserError(f"`dvc {' '.join(arguments)}`: {' '.join(last)}")
    return done.stdout


def wait(names, pause=2):
    """Return when none of the experiments is queued or running; raises `UserError` naming those that failed."""
    from tqdm import tqdm

    with tqdm(total=len(names), desc="sweep", unit="point", disable=not sys.stderr.isatty()) as bar:
        while True:
            lines = [line.split() for line in dvc("queue", "status").splitlines()]
            state = {words[1]: words[-1] for words in lines if len(words) > 2 and words[1] in names}
            ended = [name for name in names if state.get(name) not in ("Queued", "Running")]
            bar.update(len(ended) - bar.n)
            if len(ended) == len(names):
                break
            time.sleep(pause)
    failed = [name for name in names if state.get(name) == "Failed"]
    if failed:
        raise UserError(f"{', '.join(failed)} failed; `dvc queue logs {failed[0]}` shows why")


def gather(names):
    """One row a point: its name, steps, step size and the numbers SHOWN, in the order of steps and sizes."""
    frame = pd.read_csv(io.StringIO(dvc("exp", "show", "--csv", "--no-pager")))
    frame = frame[frame["Experiment"].isin(names)]
    columns = {"Experiment": "name", STEPS: "steps", SIZE: "step_size", **{f"eb_mvae.{key}": key for key in SHOWN}}
    missing = set(columns) - set(frame.columns)
    if missing or len(frame) < len(names):
        raise UserError(f"`dvc exp show` lacks {', '.join(sorted(missing)) or 'points of the sweep'}; was metrics.json made by this code?")
    return frame[list(columns)].rename(columns=columns).sort_values(["steps", "step_size"])


def plot(table):
    """Coherence and distance (m3 given all others, and the mean over the grid) against steps, a line a step size."""
    figure, axes = plt.subplots(2, 2, figsize=(8.8, 5.5), sharex=True, layout="constrained")
    for axis, key in zip(axes.T.flat, ("m3_coherence", "mean_coherence", "m3_distance", "mean_distance")):
        for size, rows in table.groupby("step_size"):
            axis.plot(rows["steps"], rows[key], "o-", label=f"step size {size:g}")
        axis.set_title({"m3": "m3 given all others", "mean": "mean over the grid"}[key.split("_")[0]] + f": {key.split('_')[1]}", fontsize=9)
        axis.set_xlabel("Langevin steps", fontsize=8)
        axis.grid(alpha=0.25)
    axes[0, 0].legend(fontsize=8, frameon=False)
    return figure


if __name__ == "__main__":
    runtime.run(main)
