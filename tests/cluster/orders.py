"""The order in which stages complete does not matter: the smallest DAG in random orders, two stages at once; same lock, same bytes.

Odd orders begin with the committed dvc.lock, as in any clone, and end with the same bytes of it too. Even ones begin without: DVC then
writes stages into it in the order in which they complete, and what it says of each must be the same.

    python -m tests.cluster.orders [--orders 10]      # about a minute an order
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
from tests.torture import TINY


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--orders", type=int, default=10)
    count = parser.parse_args().orders
    expected, lock, orders = None, None, []
    for order in range(count + 1):
        with tempfile.TemporaryDirectory() as name:
            folder = clone(Path(name))
            set_params(folder, TINY)
            without = order > 0 and order % 2 == 0
            if without:
                (folder / "dvc.lock").unlink()
            commit(folder, "tiny")
            if order == 0:
                shell(folder, "dvc", "repro")
            else:
                ran = in_random_order(folder, random.Random(order))
                orders.append(ran)
            found, said = made(folder), yaml.safe_load((folder / "dvc.lock").read_text())
            status = shell(folder, "dvc", "status").stdout
            assert "up to date" in status, status
        expected, lock = expected or found, lock or said
        different = {file for file in expected.keys() | found.keys() if expected.get(file) != found.get(file)}
        if without and said == lock:  # dicts: whatever their order
            different -= {"dvc.lock"}
        print(f"order {order}: {'dvc repro, one after the other' if order == 0 else ' '.join(ran)}: {len(found)} files, "
              f"{len(different)} different {sorted(different)[:5]}", flush=True)
        if different:
            sys.exit(1)
    assert len({tuple(ran) for ran in orders}) == count, "two orders were the same"
    print(f"{count} orders of completion, all different: the same {len(expected)} files, byte for byte; the order of dvc.lock's entries too where there was one")


def in_random_order(folder, rng):
    """Run the DAG by make, two stages at once, what can start in an order drawn by `rng`; the stages as they completed."""
    text = shell(folder, sys.executable, "-m", "cluster.rules").stdout
    stages = re.search("^all: (.*)$", text, re.M)[1].split()
    text = re.sub("^all: .*$", lambda _: "all: " + " ".join(rng.sample(stages, len(stages))), text, flags=re.M)
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
    files = [file for name in MADE for file in ([folder / name] if (folder / name).is_file() else sorted((folder / name).rglob("*")))]
    return {file.relative_to(folder).as_posix(): hashlib.sha256(file.read_bytes()).hexdigest() for file in files if file.is_file()}


if __name__ == "__main__":
    main()
