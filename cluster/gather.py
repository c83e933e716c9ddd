"""Bring the results of `cluster.submit` into this folder: everything from the remote's run cache, then the report.

    python -m cluster.gather [--run paper-1a2b3c4]

params.yaml becomes that of the run, and in the end `dvc status` is clean. Each seed beside the first goes into reports/seeds/.
"""

import shutil
import subprocess
import sys
from pathlib import Path

from cluster import status
from cluster.prepare import git
from stages.lib import artifacts, runtime
from stages.lib.runtime import UserError


def main():
    asked = status.arguments(__doc__).parse_args()
    run = status.find(asked.shared, asked.run)
    jobs = status.states(run)
    if missing := {name: each for name, each in jobs.items() if each["state"] != "done"}:
        worst = sorted(missing.items(), key=lambda item: item[1]["state"] not in ("failed", "lost"))  # first, why others are cancelled
        name, each = worst[0]
        log = f", its log is {each['log']}" if Path(each["log"]).exists() else ""
        raise UserError(f"{run.name}: {len(missing)} of {len(jobs)} jobs are not done; {name} {each['state']}{log} "
                        "(`python -m cluster.status` shows all; `python -m cluster.submit` again does what is missing)")
    noted = status.read(run)
    (first, *others), partly = noted["seeds"], bool(noted["stages"])
    texts = {seed: git("show", f"seed{seed}:params.yaml", folder=run / "project") for seed in (first, *others)}
    if Path("params.yaml").read_text() not in texts.values() and git("status", "--porcelain", "params.yaml"):
        raise UserError("params.yaml: has changes that are in no commit and would be lost; commit it, or `git checkout params.yaml`")
    made = sorted({each["stage"] for each in jobs.values()})
    for seed in (*others, first):  # so that the report of the first finds all the others
        artifacts.write("params.yaml", texts[seed].encode(), checksum=False)
        print(f"gather: seed {seed}", flush=True)
        restore(made, made if partly else [])
        if seed in others and not partly:
            Path("reports/seeds").mkdir(exist_ok=True)
            shutil.copy("reports/seed.json", f"reports/seeds/{seed}.json")
    left = subprocess.run([sys.executable, "-m", "dvc", "status", *(made if partly else [])], capture_output=True, text=True).stdout
    if "up to date" not in left:
        raise UserError(f"`dvc status` is not clean: {' '.join(left.split())}")
    print("gather: `dvc status` is clean")


def restore(made, targets):
    """`dvc repro --pull` of the targets; raises `UserError` as soon as DVC runs one of the stages `made` instead of restoring it."""
    process = subprocess.Popen([sys.executable, "-m", "dvc", "repro", "--pull", *targets], text=True, stdout=subprocess.PIPE,
                               stderr=subprocess.STDOUT)
    for line in process.stdout:
        print(line, end="", flush=True)
        if line.startswith("Running stage '") and (name := line.split("'")[1]) in made:
            process.terminate()  # the stage stops when DVC is gone
            process.wait()
            raise UserError(f"{name} is done but not in the remote's run cache: is the code here that of the run, the remote the same? "
                            "`python -m cluster.submit` again makes it")
    if process.wait():
        raise UserError("`dvc repro --pull` failed, as said above")


if __name__ == "__main__":
    runtime.run(main)
