"""The DAG of dvc.yaml as rules for make, which starts independent stages side by side.

    python -m tools.parallel > rules.mk && make --keep-going --jobs 4 --file rules.mk

DVC decides what is stale. With --keep-going a stage that fails stops only what depends on it, and
make names it at the end.
"""

import functools
import subprocess
from pathlib import Path

from dvc.dvcfile import LOCK_FILE, Lockfile
from dvc.exceptions import DvcException
from dvc.repo import Repo

from ebmvae import command, params
from ebmvae.core.messages import UserError

CONFIG = ".dvc/config"


def main():
    command.parser(__doc__).parse_args()
    refuse_conflicts()
    try:
        with Repo() as repo:
            refuse_torn_lock(repo)
            refuse_other_modalities(repo)
            refuse_missing_inception(repo)
            print(rules(repo), end="")
    except DvcException as error:  # a broken dvc.yaml or params.yaml, a folder without a project
        mark = getattr(error.__cause__, "problem_mark", None)  # of a YAML parser
        raise UserError(f"{error} (line {mark.line + 1})" if mark else error) from None


def dag(repo):
    """{stage: [stages it depends on]} in an order in which they can run.

    The stages that begin the longest chains come first: most others wait for them.
    """
    graph = repo.index.graph  # from a stage to those it depends on
    needs = {
        stage.addressing: sorted(other.addressing for other in graph.successors(stage))
        for stage in graph
    }
    readers = {name: [other for other in needs if name in needs[other]] for name in needs}

    @functools.cache
    def chain(name):
        """How many stages the longest chain has that begins with `name`."""
        return 1 + max(map(chain, readers[name]), default=0)

    return {name: needs[name] for name in sorted(needs, key=lambda name: (-chain(name), name))}


def rules(repo):
    """Makefile text with one rule per stage; the first rule makes all, in the order of `dag`."""
    stages = dag(repo)
    lines = [f".PHONY: all {' '.join(stages)}", f"all: {' '.join(stages)}"]
    for number, (name, needs) in enumerate(stages.items(), start=1):
        lines += [
            f"{name}: {' '.join(needs)}",
            f"\t@echo '[{number} of {len(stages)}] {name}'",
            f"\t@dvc --wait-for-lock repro --single-item {name}",
        ]
    return "\n".join(lines) + "\n"


def refuse_conflicts():
    """Raise `UserError` with the remedy where a merge left its marks in a file that DVC reads."""
    # dvc.lock comes last: what `make repro` runs follows from the others.
    for file in ("dvc.yaml", "params.yaml", CONFIG, LOCK_FILE):
        if Path(file).is_file():
            remedy = lock_of_one_side() if file == LOCK_FILE else ""
            params.refuse_conflict(file, Path(file).read_text(errors="replace"), remedy)


def lock_of_one_side():
    """How to take one side's dvc.lock: during the merge, or after one that was committed as is."""
    unmerged = ["git", "ls-files", "--unmerged", "--", LOCK_FILE]
    if subprocess.run(unmerged, capture_output=True).stdout:
        way = f"`git checkout --ours {LOCK_FILE}` (or --theirs), `git add {LOCK_FILE}`"
    else:
        way = f"`git checkout COMMIT {LOCK_FILE}` with one from before the merge"
    return f"{way}, then `make repro`, which runs what that side lacks"


def refuse_torn_lock(repo):
    """Raise `UserError` with the remedy where dvc.lock is torn.

    DVC writes it in place: killed in that moment, it leaves the beginning of the file. What stages
    made is in the run cache by then, and an older dvc.lock brings it back.
    """
    if not damage(repo):
        return
    with repo.lock:  # another DVC may have been writing it
        if reason := damage(repo):
            raise UserError(
                f"{LOCK_FILE} is damaged ({reason}); `git checkout {LOCK_FILE}`, then start again: "
                "the run cache restores what was made"
            )


def refuse_other_modalities(repo):
    """Raise `UserError` where dvc.yaml lists another number of modalities than params.yaml has."""
    listed = [stage for stage in repo.index.stages if stage.addressing.startswith("train_vae@")]
    m = params.load().polymnist.modalities if listed else 0
    if len(listed) != m:
        raise UserError(
            f"polymnist.modalities = {m}, but dvc.yaml lists {len(listed)}; "
            f"`python -m tools.modalities {m}` sets both"
        )


def refuse_missing_inception(repo):
    """Raise `UserError` where the Inception weights can't be had: only the last stages read them.

    Those to be downloaded are in data/raw afterwards.
    """
    if not any(stage.addressing == "references" for stage in repo.index.stages):
        return
    fid = params.load().fid
    if fid.inception_weights != "none":
        from ebmvae.evaluation import features  # with torch

        features.weights(fid)


def damage(repo):
    """What is wrong with dvc.lock, "" for nothing.

    Half of a YAML file often is a YAML file, so DVC itself does not refuse every torn one.
    """
    try:
        Lockfile(repo, LOCK_FILE).load()
    except DvcException as error:
        return str(error).splitlines()[0]
    lock = Path(LOCK_FILE)
    return "its last line is torn" if lock.exists() and lock.read_bytes()[-1:] != b"\n" else ""


if __name__ == "__main__":
    command.run(main)
