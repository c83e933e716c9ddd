"""The DAG of dvc.yaml as Slurm jobs, one per stage, each after those it depends on.

    python -m cluster.submit --profile paper --seeds 5 --dry-run

Then `cluster.status`, in the end `cluster.gather`. A job works in a clone of the committed project
in the shared folder and hands its results on through DVC's default remote. What the remote's run
cache already has is restored in seconds: after a failure, submit again.
"""

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import yaml
from dvc.exceptions import DvcException
from dvc.repo import Repo

from cluster import job, prepare, status
from ebmvae import command
from ebmvae.core import artifacts
from ebmvae.core.messages import UserError
from tools.parallel import dag

RESOURCES = Path("cluster/resources.yaml")
KINDS = {  # what a stage needs: (its form, an example)
    "gpus": (r"\d+", "a whole number"),
    "cpus": (r"[1-9]\d*", "a whole number of 1 or more"),
    "memory": (r"[1-9]\d*[MG]", "such as 500M or 4G"),
    "minutes": (r"[1-9]\d*", "a whole number of 1 or more"),
}
TIMEOUTS = 20  # starts after the time was up
# After submitit's srun: a killed step (128 + 9) is queued again, and what waits for it goes on
# waiting. Not for ever, since memory that runs out looks the same. Slurm counts all restarts of a
# job as one, so of 30 some 10 are left for kills.
TEARDOWN = [
    "code=$?",
    'if [ $code -eq 137 ] && [ "${SLURM_RESTART_COUNT:-0}" -lt 30 ]; then '
    'scontrol requeue "$SLURM_JOB_ID" && sleep 60; fi',
    "exit $code",
]


def main():
    parser = command.parser(__doc__)
    profile = "a file of profiles/, without .args; default: params.yaml as committed"
    parser.add_argument("--profile", default="default", help=profile)
    seeds = "N: seeds 0 to N - 1; without it, that of params.yaml"
    parser.add_argument("--seeds", type=int, help=seeds)
    stages = "only these and what they need: train_vae (all of them) or train_vae@m1"
    parser.add_argument("--stages", nargs="+", default=[], help=stages)
    parser.add_argument("--partition", help="of Slurm; without it, Slurm's default")
    shared = f"folder that all nodes see ({status.SHARED})"
    parser.add_argument("--shared", type=Path, default=status.SHARED, help=shared)
    dry = "print what would be submitted; needs neither Slurm nor submitit"
    parser.add_argument("--dry-run", action="store_true", help=dry)
    args = parser.parse_args()
    try:
        submit(args)
    except DvcException as error:  # a broken dvc.yaml, a folder without a project
        raise UserError(error) from None


def submit(args):
    """Print the plan and, unless `args.dry_run`, submit it.

    Raises `UserError` for whatever the user can mend.
    """
    executor = None if args.dry_run else slurm_executor()
    commit = prepare.committed()
    texts = prepare.parameters(args.profile, args.seeds)
    seeds = list(texts)
    with Repo() as repo:
        name, settings = prepare.remote(repo)
        jobs = plan(repo, seeds, args.stages)
    needs = resources(args.profile, {entry["stage"] for entry in jobs.values()})
    run = args.shared.absolute() / f"{args.profile}-{commit[:7]}"
    print(
        f"{run.name}: {len(jobs)} jobs, profile {args.profile}, "
        f"seeds {', '.join(map(str, seeds))}; remote {name} ({settings['url']}); in {run}"
    )
    rows = [("job", *KINDS, "after")]
    for key, entry in jobs.items():
        rows.append((key, *needs[entry["stage"]].values(), ", ".join(entry["after"]) or "-"))
    status.show(rows)
    if args.dry_run:
        return
    refuse_running(run)
    prepare.project(run, commit, texts, name, settings)
    note = {"commit": commit, "profile": args.profile, "seeds": seeds, "stages": args.stages}
    send(executor, run, {**note, "jobs": jobs}, needs, args.partition)
    print(
        "submitted; `python -m cluster.status` shows how it goes, "
        "`python -m cluster.gather` brings the results here"
    )


def plan(repo, seeds, targets):
    """{job: {"stage", "seed", "after": [jobs]}} in an order in which they can run.

    Stages that neither read `seed` nor depend on one that does are made once for all seeds. Left
    out are stages whose outputs git keeps (`report`): DVC has no run cache of them. Raises
    `UserError` for a target that is no stage.
    """
    stages = {stage.addressing: stage for stage in repo.index.graph}
    needs = dag(repo)
    needs = {name: needs[name] for name in needs if all(o.use_cache for o in stages[name].outs)}
    wanted = selected(needs, targets)
    jobs, seeded, ancestors = {}, set(), {}
    for name, direct in needs.items():
        ancestors[name] = set(direct).union(*(ancestors[other] for other in direct))
        if reads_seed(stages[name]) or seeded & set(direct):
            seeded.add(name)
        if name not in wanted:
            continue
        # The others have ended when these have.
        last = [other for other in direct if not any(other in ancestors[o] for o in direct)]
        for seed in seeds if name in seeded else seeds[:1]:
            labels = {other: f"{other}-seed{seed}" if other in seeded else other for other in needs}
            after = [labels[other] for other in last]
            jobs[labels[name]] = {"stage": name, "seed": seed, "after": after}
    return jobs


def selected(needs, targets):
    """The stages that `targets` name (train_vae: all of them) and all they need; without, all."""
    wanted = set() if targets else set(needs)
    for target in targets:
        named = {name for name in needs if target in (name, name.split("@")[0])}
        if not named:
            known = ", ".join(dict.fromkeys(name.split("@")[0] for name in needs))
            raise UserError(f"--stages {target}: no such stage for Slurm; known are {known}")
        wanted |= named
    for name in reversed(needs):
        if name in wanted:
            wanted.update(needs[name])
    return wanted


def reads_seed(stage):
    """Whether the parameter `seed` is among the stage's dependencies."""
    return any("seed" in (getattr(dep, "params", None) or ()) for dep in stage.deps)


def resources(profile, stages):
    """{stage: {"gpus", "cpus", "memory", "minutes"}} from resources.yaml.

    Raises `UserError` naming what is wrong there.
    """
    try:
        content = yaml.safe_load(RESOURCES.read_text())
    except (OSError, ValueError, yaml.YAMLError) as error:
        remedy = f"`git checkout {RESOURCES}` brings it back"
        raise UserError(f"{RESOURCES}: can't be read ({error}); {remedy}") from None
    section = profile if isinstance(content, dict) and profile in content else "default"
    needs = {}
    for stage in sorted(stages):
        name = stage.split("@")[0]
        try:
            needs[stage] = {kind: content[section][name][kind] for kind in KINDS}
        except (KeyError, TypeError):
            kinds = ", ".join(KINDS)
            raise UserError(f"{RESOURCES}: {section}.{name} should give {kinds}") from None
        for kind, value in needs[stage].items():
            form, example = KINDS[kind]
            if isinstance(value, bool) or not re.fullmatch(form, str(value)):
                key = f"{section}.{name}.{kind}"
                raise UserError(f"{RESOURCES}: {key} = {value} should be {example}")
    return needs


def slurm_executor():
    """submitit's class of executors for Slurm; raises `UserError` without submitit or Slurm."""
    try:
        from submitit import SlurmExecutor
    except ImportError:
        install = "`python -m pip install -r cluster/requirements.txt`"
        raise UserError(f"submitit is missing: {install}") from None
    if not shutil.which("sbatch"):
        raise UserError(
            "sbatch is missing: submit where Slurm is; --dry-run shows what would be submitted"
        )
    return SlurmExecutor


def refuse_running(run):
    """Raise `UserError` where Slurm still has jobs of an earlier submission of `run`."""
    if not (run / "run.json").exists():
        return
    ids = [entry["id"] for entry in status.read(run)["jobs"].values()]
    if still := sorted(set(ids) & set(status.squeue(ids))):
        raise UserError(
            f"{run.name} is still running: wait for it (`python -m cluster.status`), "
            f"or `scancel {' '.join(still)}`"
        )


def send(executor, run, note, needs, partition):
    """Submit the jobs of `note`, adding to each its "id", and write it all to run.json.

    If Slurm refuses one, or run.json can't be written, those before it are cancelled and
    `UserError` is raised.
    """
    jobs = note["jobs"]
    digits = Path(os.environ.get("MNIST_DIR") or "data/raw")
    if digits.is_dir():  # Slurm hands this environment on, and data/raw is in no clone
        os.environ["MNIST_DIR"] = str(digits.absolute())
    try:
        for name, entry in jobs.items():
            entry["id"] = send_one(executor, run, name, jobs, needs[entry["stage"]], partition)
        text = json.dumps(note, indent=1)
        artifacts.write(run / "run.json", text.encode(), checksum=False)
    except BaseException:  # Ctrl-C too
        ids = [entry["id"] for entry in jobs.values() if "id" in entry]
        subprocess.run(["scancel", *ids], capture_output=True)
        raise


def send_one(executor, run, name, jobs, need, partition):
    """Slurm's id of the job `name`, submitted after those it waits for.

    Raises `UserError` with what Slurm said if it refuses.
    """
    from submitit.core.utils import FailedJobError

    entry, folder = jobs[name], run / "jobs" / name
    (folder / "state.json").unlink(missing_ok=True)
    ids = [jobs[other]["id"] for other in entry["after"]]
    project = str(run / "project")
    slurm = executor(folder, max_num_timeout=TIMEOUTS)
    slurm.update_parameters(
        job_name=name,
        partition=partition,
        time=need["minutes"],
        mem=need["memory"],
        cpus_per_task=need["cpus"],
        gpus_per_node=need["gpus"] or None,
        stderr_to_stdout=True,
        teardown=TEARDOWN,
        dependency=f"afterok:{':'.join(ids)}" if ids else None,
        additional_parameters={"requeue": True, "kill-on-invalid-dep": "yes", "chdir": project},
    )
    try:
        return slurm.submit(job.run, str(folder), entry["stage"], f"seed{entry['seed']}").job_id
    except FailedJobError as error:
        lines = str(error).splitlines()
        last = ([line for line in lines if "error" in line] or lines)[-1:]
        reason = f"{' '.join(last)}; see {RESOURCES} and --partition"
        raise UserError(f"Slurm refuses {name}: {reason}") from None


if __name__ == "__main__":
    command.run(main)
