"""Means and standard deviations over seeds: this run's numbers and those that `make seeds` kept.

A number of another seed counts only where its run had the same data, parameters and code. Each
method carries a fingerprint of what its stages follow from, and one that differs leaves that seed
out of that method's mean.
"""

import hashlib
import json
import statistics
from pathlib import Path

from ebmvae.core import artifacts, code
from ebmvae.core.messages import UserError, say
from ebmvae.methods import METHODS

FOLDER = Path("reports/seeds")
# What the numbers of all methods follow from; a test compares both with dvc.yaml.
SHARED_PARAMS = ("threads", "polymnist", "classifier", "vae", "evaluate", "fid")
SHARED_CODE = (
    *(f"ebmvae/{name}" for name in ("core", "data", "evaluation", "sources", "vae")),
    *(
        f"stages/{name}.py"
        for name in (
            "polymnist",
            "train_classifiers",
            "train_vae",
            "encode",
            "references",
            "evaluate",
        )
    ),
)


def fingerprints(p, data):
    """SHA-256 of all but the seed that a method's numbers follow from, by method.

    p: all parameters; data: what identifies the data, JSON-able. `references` has one too.
    """
    values = p.model_dump()
    shared = [data, {key: values[key] for key in SHARED_PARAMS}]
    parts = {"references": [*shared, code.digests(SHARED_CODE)]}
    for method, entry in METHODS.items():
        own = values
        for key in entry.params.split("."):
            own = own[key]
        if entry.kind == "baseline":
            own = [own, values["baseline"]["latent_dim"]]
        else:
            own = [own, values["matmul_precision"]]
        parts[method] = [*shared, own, code.digests((*SHARED_CODE, *entry.code))]
    return {name: _digest(part) for name, part in parts.items()}


def _digest(content):
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def signed(run):
    """`run` with its own SHA-256 in it, for the file that `make seeds` keeps."""
    return {**run, "sha256": _digest(run)}


def _checked(file):
    """The run that `signed` wrote to `file`; raises `UserError` where it is another or damaged."""
    run = artifacts.load_json(file, checksum=False)
    digest = run.pop("sha256", None) if isinstance(run, dict) else None
    if digest is None or signed(run)["sha256"] != digest:
        raise UserError(
            f"{file}: damaged, or not made by this version's `make seeds`; remove it, and "
            "`make seeds` makes it anew"
        )
    return run


def gather(run, folder=FOLDER):
    """Runs of all seeds, this one and those in `folder`, in the order of seeds.

    A run is {"seed", "fingerprints": {method: str}, "table": {method: numbers}}. What has another
    fingerprint is left out; `unimodal_vae` and `real` go by that of the references. Raises
    `UserError` for a damaged file.
    """
    own, runs = run["fingerprints"], [run]
    for file in sorted(Path(folder).glob("*.json")):
        other = _checked(file)
        if other["seed"] == run["seed"]:
            continue
        same = {name for name, value in own.items() if other["fingerprints"].get(name) == value}
        table = {
            name: part
            for name, part in other["table"].items()
            if (name if name in own else "references") in same
        }
        if len(same) < len(own):
            left_out = ", ".join(sorted(set(own) - same))
            say(
                f"report: {file} was made with other data, parameters or code: left out of "
                f"{left_out}; `make seeds` makes it anew"
            )
        runs.append({**other, "table": table})
    return sorted(runs, key=lambda run: run["seed"])


def summary(runs):
    """Mean and sample standard deviation of every number, over the runs that have it.

    Returns two tables: the means in the shape of the runs' tables, and the deviations, where there
    are two or more runs.
    """
    names = list(dict.fromkeys(name for run in runs for name in run["table"]))
    pairs = {
        name: _combine([run["table"][name] for run in runs if name in run["table"]])
        for name in names
    }
    means = {name: mean for name, (mean, _) in pairs.items()}
    return means, {name: spread for name, (_, spread) in pairs.items() if spread}


def _combine(parts):
    """(mean, deviation) of equal numbers of several runs, or of tables of them."""
    if not isinstance(parts[0], dict):
        return statistics.fmean(parts), statistics.stdev(parts) if len(parts) > 1 else None
    pairs = {key: _combine([part[key] for part in parts if key in part]) for key in parts[0]}
    deviations = {
        key: deviation for key, (_, deviation) in pairs.items() if deviation not in (None, {})
    }
    return {key: mean for key, (mean, _) in pairs.items()}, deviations
