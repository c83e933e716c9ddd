"""Bring the results of `cluster.submit` into this folder, from the remote's run cache.

    python -m cluster.gather [--run paper-1a2b3c4]

Then the report is made here. params.yaml becomes that of the run, and in the end `dvc status` is
clean. Each seed beside the first goes into reports/seeds/.
"""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

from cluster import status
from cluster.prepare import git
from ebmvae import command
from ebmvae.core import artifacts
from ebmvae.core.messages import UserError


def main():
    args = status.parser(__doc__).parse_args()
    run = status.find(args.shared, args.run)
    jobs = status.states(run)
    refuse_unfinished(run, jobs)
    note = status.read(run)
    (first, *others), partly = note["seeds"], bool(note["stages"])
    project = run / "project"
    texts = {seed: git("show", f"seed{seed}:params.yaml", folder=project) for seed in note["seeds"]}
    refuse_to_lose_parameters(texts)
    stages = sorted({entry["stage"] for entry in jobs.values()})
    targets = stages if partly else []
    for seed in (*others, first):  # so that the report of the first finds all the others
        artifacts.write("params.yaml", texts[seed].encode(), checksum=False)
        print(f"gather: seed {seed}", flush=True)
        restore(stages, targets)
        if seed in others and not partly:
            Path("reports/seeds").mkdir(exist_ok=True)
            shutil.copy("reports/seed.json", f"reports/seeds/{seed}.json")
    words = [sys.executable, "-m", "dvc", "status", *targets]
    stale = subprocess.run(words, capture_output=True, text=True).stdout
    if "up to date" not in stale:
        raise UserError(f"`dvc status` is not clean: {' '.join(stale.split())}")
    print("gather: `dvc status` is clean")


def refuse_unfinished(run, jobs):
    """Raise `UserError` unless all jobs are done; it names the one that the others wait for."""
    missing = {name: entry for name, entry in jobs.items() if entry["state"] != "done"}
    if not missing:
        return
    causes = [name for name, entry in missing.items() if entry["state"] in ("failed", "lost")]
    name = (causes or list(missing))[0]
    log = missing[name]["log"]
    where = f", its log is {log}" if Path(log).exists() else ""
    raise UserError(
        f"{run.name}: {len(missing)} of {len(jobs)} jobs are not done; "
        f"{name} {missing[name]['state']}{where} (`python -m cluster.status` shows all; "
        "`python -m cluster.submit` again does what is missing)"
    )


def refuse_to_lose_parameters(texts):
    """Raise `UserError` where params.yaml is in no commit and in none of the run's `texts`."""
    kept = Path("params.yaml").read_text() in texts.values()
    if not kept and git("status", "--porcelain", "params.yaml"):
        raise UserError(
            "params.yaml: has changes that are in no commit and would be lost; "
            "commit it, or `git checkout params.yaml`"
        )


def restore(stages, targets):
    """`dvc repro --pull` of the targets, all without.

    Raises `UserError` as soon as DVC runs one of `stages` instead of restoring it.
    """
    words = [sys.executable, "-m", "dvc", "repro", "--pull", *targets]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    # A group of its own, since only a SIGINT to the group ends both DVC and the stage below it.
    with subprocess.Popen(words, text=True, process_group=0, **pipes) as process:
        try:
            refuse_to_run(process.stdout, stages)
        except BaseException:  # Ctrl-C too
            os.killpg(process.pid, signal.SIGINT)
            process.communicate()  # DVC waits for the stage, which keeps a checkpoint
            raise
    if process.returncode:
        raise UserError("`dvc repro --pull` failed, as said above")


def refuse_to_run(lines, stages):
    """Print DVC's lines; raises `UserError` at the first one that says it runs one of `stages`."""
    for line in lines:
        print(line, end="", flush=True)
        if line.startswith("Running stage '") and (name := line.split("'")[1]) in stages:
            raise UserError(
                f"{name} is done but not in the remote's run cache: is the code here that of "
                "the run, the remote the same? `python -m cluster.submit` again makes it"
            )


if __name__ == "__main__":
    command.run(main)
