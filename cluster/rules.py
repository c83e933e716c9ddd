"""The DAG of dvc.yaml as rules for make, which starts independent stages side by side; DVC decides what is stale.

    python -m cluster.rules > rules.mk && make --keep-going --jobs 4 --file rules.mk

With --keep-going a stage that fails stops only what depends on it, and make names it at the end.
"""

import functools
import os
import sys
from pathlib import Path

from dvc.dvcfile import LOCK_FILE, Lockfile
from dvc.exceptions import DvcException
from dvc.lock import LockError
from dvc.repo import Repo


def dag(repo):
    """{stage: [stages it depends on]}, in an order in which they can run: what most wait for, one after the other, first."""
    graph = repo.index.graph  # from a stage to those it depends on
    needs = {stage.addressing: sorted(other.addressing for other in graph.successors(stage)) for stage in graph}

    @functools.cache
    def waiting(name):
        """Length of the longest chain of stages that ends the pipeline and begins with `name`."""
        return 1 + max((waiting(other) for other, its in needs.items() if name in its), default=0)

    return {name: needs[name] for name in sorted(needs, key=lambda name: (-waiting(name), name))}


def rules(repo):
    """Makefile text: a rule a stage, after those it depends on; the first makes them all, and make starts them in its order."""
    needs = dag(repo)
    lines = [f".PHONY: all {' '.join(needs)}", f"all: {' '.join(needs)}"]
    for number, (name, its) in enumerate(needs.items(), start=1):
        lines += [f"{name}: {' '.join(its)}", f"\t@echo '[{number} of {len(needs)}] {name}'", f"\t@dvc --wait-for-lock repro --single-item {name}"]
    return "\n".join(lines) + "\n"


def torn(repo):
    """What is wrong with dvc.lock, "" if nothing is. Half of a YAML file often is one, so DVC itself does not always refuse it."""
    try:
        Lockfile(repo, LOCK_FILE).load()
    except DvcException as error:
        return str(error).splitlines()[0]
    lock = Path(LOCK_FILE)
    return "its last line is torn" if lock.exists() and not lock.read_bytes().endswith(b"\n") else ""


def mend(repo):
    """Set a torn dvc.lock aside as dvc.lock.damaged, and say so.

    DVC writes it in place, so that a kill in that moment leaves its beginning, which DVC may then refuse for ever. What stages
    made is in the run cache before, so without a dvc.lock DVC restores it and runs none of them again.
    """
    if torn(repo):
        with repo.lock:  # which another DVC would have that is writing it just now
            if why := torn(repo):
                os.replace(LOCK_FILE, f"{LOCK_FILE}.damaged")
                print(f"{LOCK_FILE} is damaged ({why}); set aside as {LOCK_FILE}.damaged, DVC makes it anew", file=sys.stderr)


def main():
    try:
        with Repo() as repo:
            mend(repo)
            print(rules(repo), end="")
    except LockError:
        sys.exit(f"error: {LOCK_FILE} can't be read, and another DVC is at work in this folder; try again when it has ended")
    except DvcException as error:  # dvc.yaml or params.yaml
        sys.exit(f"error: {' '.join(str(error).split())}")


if __name__ == "__main__":
    main()
