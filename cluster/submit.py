"""The DAG of dvc.yaml as Slurm jobs, one a stage, each after those it depends on. Then `cluster.status`, in the end `cluster.gather`.

    python -m cluster.submit --profile paper --seeds 5 --dry-run

A job works in a clone of the committed project in the shared folder and hands its results on through DVC's default remote. What
the remote's run cache already has is restored in seconds: after a failure, submit again.
"""

import argparse
import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import yaml

from cluster import job, prepare, status
from cluster.rules import dag
from stages.lib import artifacts, runtime
from stages.lib.runtime import UserError

RESOURCES = Path("cluster/resources.yaml")
KINDS = {"gpus": r"\d+", "cpus": r"[1-9]\d*", "memory": r"[1-9]\d*[MG]", "minutes": r"[1-9]\d*"}
TIMEOUTS = 20  # starts after the time was up
# After submitit's srun: a killed step (128 + 9) is queued again, and what waits for it goes on waiting; not for ever, since
# memory that runs out looks the same. Slurm counts all restarts of a job as one, so of 30 some 10 are left for kills.
TEARDOWN = ['code=$?',
            'if [ $code -eq 137 ] && [ "${SLURM_RESTART_COUNT:-0}" -lt 30 ]; then scontrol requeue "$SLURM_JOB_ID" && sleep 60; fi',
            'exit $code']


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--profile", default="default", help="a file of profiles/, without .args; default: params.yaml as committed")
    parser.add_argument("--seeds", type=int, help="N: seeds 0 to N - 1; without it, that of params.yaml")
    parser.add_argument("--stages", nargs="+", default=[], help="only these and what they need: train_vae (all of them) or train_vae@m1")
    parser.add_argument("--partition", help="of Slurm; without it, Slurm's default")
    parser.add_argument("--shared", type=Path, default=status.SHARED, help=f"folder that all nodes see ({status.SHARED})")
    parser.add_argument("--dry-run", action="store_true", help="print what would be submitted; needs neither Slurm nor submitit")
    asked = parser.parse_args()
    from dvc.exceptions import DvcException

    try:
        submit(asked)
    except DvcException as error:  # a broken dvc.yaml, a folder without a project
        raise UserError(error) from None


def submit(asked):
    """Print the plan and, unless `asked.dry_run`, submit it. Raises `UserError` for whatever the user can mend."""
    from dvc.repo import Repo

    executor = None if asked.dry_run else executor_of()
    commit = prepare.committed()
    contents = prepare.parameters(asked.profile, asked.seeds)
    with Repo() as repo:
        name, settings = prepare.remote(repo)
        jobs = plan(repo, list(contents), asked.stages)
    needs = resources(asked.profile, {each["stage"] for each in jobs.values()})
    run = asked.shared.absolute() / f"{asked.profile}-{commit[:7]}"
    seeds = list(contents)
    print(f"{run.name}: {len(jobs)} jobs, profile {asked.profile}, seeds {', '.join(map(str, seeds))}; "
          f"remote {name} ({settings['url']}); in {run}")
    rows = [("job", "gpus", "cpus", "memory", "minutes", "after")]
    rows += [(key, *needs[each["stage"]].values(), ", ".join(each["after"]) or "-") for key, each in jobs.items()]
    status.show(rows)
    if asked.dry_run:
        return
    if ids := [each["id"] for each in status.read(run)["jobs"].values()] if (run / "run.json").exists() else []:
        if still := sorted(set(ids) & set(status.squeue(ids))):
            raise UserError(f"{run.name} is still running: wait for it (`python -m cluster.status`), or `scancel {' '.join(still)}`")
    prepare.project(run, commit, contents, name, settings)
    noted = {"commit": commit, "profile": asked.profile, "seeds": seeds, "stages": asked.stages, "jobs": jobs}
    send(executor, run, noted, needs, asked.partition)
    print("submitted; `python -m cluster.status` shows how it goes, `python -m cluster.gather` brings the results here")


def plan(repo, seeds, targets):
    """{job: {"stage", "seed", "after": [jobs]}} in an order in which they can run.

    Stages that neither read `seed` nor depend on one that does are made once for all seeds. Left out are stages whose outputs
    are git's (`report`): DVC keeps no run cache of them. Raises `UserError` for a target that is no stage.
    """
    stages = {stage.addressing: stage for stage in repo.index.graph}
    needs = {name: its for name, its in dag(repo).items() if all(out.use_cache for out in stages[name].outs)}
    wanted = set()
    for target in targets:
        named = {name for name in needs if target in (name, name.split("@")[0])}
        if not named:
            known = ", ".join(dict.fromkeys(name.split("@")[0] for name in needs))
            raise UserError(f"--stages {target}: no such stage for Slurm; known are {known}")
        wanted |= named
    for name in reversed(needs):
        if name in wanted:
            wanted.update(needs[name])
    jobs, seeded, before = {}, set(), {}
    for name, its in needs.items():
        before[name] = set(its).union(*(before[each] for each in its))
        if "seed" in {key for dep in stages[name].deps for key in getattr(dep, "params", None) or []} or seeded & set(its):
            seeded.add(name)
        if targets and name not in wanted:
            continue
        label = lambda each, seed: f"{each}-seed{seed}" if each in seeded else each
        last = [each for each in its if not any(each in before[other] for other in its)]  # the others have ended when these have
        for seed in seeds if name in seeded else seeds[:1]:
            jobs[label(name, seed)] = {"stage": name, "seed": seed, "after": [label(each, seed) for each in last]}
    return jobs


def resources(profile, stages):
    """{stage: {"gpus", "cpus", "memory", "minutes"}} from resources.yaml; raises `UserError` naming what is wrong there."""
    try:
        content = yaml.safe_load(RESOURCES.read_text())
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise UserError(f"{RESOURCES}: can't be read ({error}); `git checkout {RESOURCES}` brings it back") from None
    section = profile if isinstance(content, dict) and profile in content else "default"
    found = {}
    for stage in sorted(stages):
        name = stage.split("@")[0]
        try:
            found[stage] = {kind: content[section][name][kind] for kind in KINDS}
        except (KeyError, TypeError):
            raise UserError(f"{RESOURCES}: {section}.{name} should give {', '.join(KINDS)}") from None
        for kind, value in found[stage].items():
            if isinstance(value, bool) or not re.fullmatch(KINDS[kind], str(value)):
                good = {"memory": "such as 500M or 4G", "gpus": "a whole number"}.get(kind, "a whole number of 1 or more")
                raise UserError(f"{RESOURCES}: {section}.{name}.{kind} = {value} should be {good}")
    return found


def executor_of():
    """submitit's class of executors for Slurm; raises `UserError` without submitit or Slurm."""
    try:
        from submitit import SlurmExecutor
    except ImportError:
        raise UserError("submitit is missing: `python -m pip install -r cluster/requirements.txt`") from None
    if not shutil.which("sbatch"):
        raise UserError("sbatch is missing: submit where Slurm is; --dry-run shows what would be submitted")
    return SlurmExecutor


def send(executor, run, noted, needs, partition):
    """Submit the jobs of `noted`, adding to each its "id", and write it all to run.json.

    If Slurm refuses one, or run.json can't be written, those before it are cancelled and `UserError` is raised.
    """
    jobs = noted["jobs"]
    digits = Path(os.environ.get("MNIST_DIR") or "data/raw")
    if digits.is_dir():  # Slurm hands this environment on, and data/raw is in no clone
        os.environ["MNIST_DIR"] = str(digits.absolute())
    try:
        for name, each in jobs.items():
            each["id"] = send_one(executor, run, name, jobs, needs[each["stage"]], partition)
        artifacts.write(run / "run.json", json.dumps(noted, indent=1).encode(), checksum=False)
    except BaseException:  # Ctrl-C too
        subprocess.run(["scancel", *(each["id"] for each in jobs.values() if "id" in each)], capture_output=True)
        raise


def send_one(executor, run, name, jobs, need, partition):
    """Slurm's id of the job `name`, submitted after those it waits for. Raises `UserError` with what Slurm said if it refuses."""
    from submitit.core.utils import FailedJobError

    each, folder = jobs[name], run / "jobs" / name
    (folder / "state.json").unlink(missing_ok=True)
    slurm = executor(folder, max_num_timeout=TIMEOUTS)
    slurm.update_parameters(
        job_name=name, partition=partition, time=need["minutes"], mem=need["memory"], cpus_per_task=need["cpus"],
        gpus_per_node=need["gpus"] or None, stderr_to_stdout=True, teardown=TEARDOWN,
        dependency="afterok:" + ":".join(jobs[other]["id"] for other in each["after"]) if each["after"] else None,
        additional_parameters={"requeue": True, "kill-on-invalid-dep": "yes", "chdir": str(run / "project")})
    try:
        return slurm.submit(job.run, str(folder), each["stage"], f"seed{each['seed']}").job_id
    except FailedJobError as error:
        lines = [line for line in str(error).splitlines() if "error" in line] or str(error).splitlines()
        raise UserError(f"Slurm refuses {name}: {' '.join(lines[-1:])}; see {RESOURCES} and --partition") from None


if __name__ == "__main__":
    runtime.run(main)
