"""The order in which stages complete does not matter: same lock, same bytes.

    python -m tests.cluster.orders [--orders 10]      # about a minute an order

The smallest DAG runs in random orders, two stages at once. Odd orders begin with the committed
dvc.lock, as in any clone, and end with the same bytes of it too. Even ones begin without: DVC then
writes stages into it as they complete, and has to write the same of each.
"""

import argparse
import hashlib
import random
import re
import sys
import tempfile
from pathlib import Path

import yaml

from benchmarks.workspace import set_params
from tests.project import MADE, clone, commit, shell
from tests.robustness.torture import TINY


def main():
    style = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=style)
    parser.add_argument("--orders", type=int, default=10)
    count = parser.parse_args().orders
    expected, lock, _ = one_run(None, with_lock=True)
    print(f"dvc repro, one after the other: {len(expected)} files", flush=True)
    orders = set()
    for order in range(1, count + 1):
        with_lock = order % 2 == 1
        files, content, ran = one_run(random.Random(order), with_lock)
        orders.add(tuple(ran))
        names = expected.keys() | files.keys()
        different = {name for name in names if expected.get(name) != files.get(name)}
        if not with_lock and content == lock:  # dicts: whatever their order
            different -= {"dvc.lock"}
        print(f"order {order}: {' '.join(ran)}", flush=True)
        print(f"  {len(files)} files, {len(different)} different {sorted(different)[:5]}")
        if different:
            sys.exit(1)
    assert len(orders) == count, "two orders were the same"
    print(f"{count} orders of completion, all different: the same {len(expected)} files, byte for")
    print("byte; the order of dvc.lock's entries too where there was one")


def one_run(rng, with_lock):
    """Run the smallest DAG in a new clone, in an order drawn by `rng`; without, by `dvc repro`.

    Returns {file: SHA-256}, the content of dvc.lock, and the stages as they completed (or what
    `dvc repro` printed).
    """
    with tempfile.TemporaryDirectory() as name:
        folder = clone(Path(name))
        set_params(folder, TINY)
        if not with_lock:
            (folder / "dvc.lock").unlink()
        commit(folder, "tiny")
        if rng:
            ran = in_random_order(folder, rng)
        else:
            ran = shell(folder, "dvc", "repro").stdout.splitlines()
        status = shell(folder, "dvc", "status").stdout
        assert "up to date" in status, status
        return made(folder), yaml.safe_load((folder / "dvc.lock").read_text()), ran


def in_random_order(folder, rng):
    """Run the DAG by make, two stages at once; what can start does in an order drawn by `rng`.

    Returns the stages as they completed.
    """
    text = shell(folder, sys.executable, "-m", "tools.parallel").stdout
    stages = re.search("^all: (.*)$", text, re.M)[1].split()
    line = "all: " + " ".join(rng.sample(stages, len(stages)))
    text = re.sub("^all: .*$", line, text, flags=re.M)
    text = re.sub(r"^(\t@dvc .* (\S+))$", r"\1 && echo \2 >> completed", text, flags=re.M)
    (folder / ".dvc/tmp").mkdir(exist_ok=True)
    (folder / ".dvc/tmp/rules.mk").write_text(text)
    shell(folder, "make", "--keep-going", "--jobs", "2", "--file", ".dvc/tmp/rules.mk")
    completed = folder / "completed"
    ran = completed.read_text().split()
    completed.unlink()
    assert sorted(ran) == sorted(stages)
    return ran


def made(folder):
    """SHA-256 of every file that a run makes."""
    paths = [path for name in MADE for path in (folder / name, *(folder / name).rglob("*"))]
    files = {path.relative_to(folder).as_posix(): path for path in paths if path.is_file()}
    return {name: hashlib.sha256(file.read_bytes()).hexdigest() for name, file in files.items()}


if __name__ == "__main__":
    main()
