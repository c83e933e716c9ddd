"""The DAG of dvc.yaml as rules for make, which starts independent stages side by side; DVC decides what is stale.

    python -m cluster.rules > rules.mk && make --keep-going --jobs 4 --file rules.mk

With --keep-going a stage that fails stops only what depends on it, and make names it at the end.
"""

import functools

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
    for name, its in needs.items():
        lines += [f"{name}: {' '.join(its)}", f"\t@dvc --wait-for-lock repro --single-item {name}"]
    return "\n".join(lines) + "\n"


def main():
    with Repo() as repo:
        print(rules(repo), end="")


if __name__ == "__main__":
    main()
