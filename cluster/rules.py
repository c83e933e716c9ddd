"""The DAG of dvc.yaml as rules for make, which starts independent stages side by side; DVC decides what is stale.

    python -m cluster.rules > rules.mk && make --keep-going --jobs 4 --file rules.mk

With --keep-going a stage that fails stops only what depends on it, and make names both at the end.
"""

from dvc.repo import Repo


def rules(repo):
    """Makefile text: a rule a stage, after those it depends on; the first makes them all."""
    graph = repo.index.graph  # from a stage to those it depends on
    needs = {stage.addressing: sorted(other.addressing for other in graph.successors(stage)) for stage in graph}
    lines = [f".PHONY: all {' '.join(sorted(needs))}", f"all: {' '.join(sorted(needs))}"]
    for name in sorted(needs):
        lines += [f"{name}: {' '.join(needs[name])}", f"\t@dvc --wait-for-lock repro --quiet --single-item {name}"]
    return "\n".join(lines) + "\n"


def main():
    with Repo() as repo:
        print(rules(repo), end="")


if __name__ == "__main__":
    main()
