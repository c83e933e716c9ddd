"""Means and standard deviations over seeds: this run's numbers and those that `make seeds` kept of other seeds.

A number of another seed counts only where its run had the same data, parameters and code: each method carries a
fingerprint of those, and one that differs leaves that seed out of that method's mean.
"""

import hashlib
import json
import statistics
from pathlib import Path

from stages.lib import artifacts
from stages.lib.runtime import UserError

FOLDER = Path("reports/seeds")
COMMON = ("polymnist", "judge", "vae", "evaluate", "fid")  # sections of params.yaml that every number depends on
OWN = {"eb_mvae": "ebm", "eb_mvae_annealed": "annealed"}  # and the section of each method; `baseline` for the others
# They change no number.
REPORTING = {"stages/report.py", "stages/sample.py", *(f"stages/lib/{name}.py" for name in ("claims", "figures", "page", "seeds"))}


def fingerprints(p, data, methods):
    """SHA-256 of all but the seed that a method's numbers follow from, by method.

    p: all parameters; data: what identifies the data, as JSON; the code is every file of stages/ but the reporting.
    """
    code = {file.as_posix(): hashlib.sha256(file.read_bytes()).hexdigest() for file in sorted(Path("stages").rglob("*.py"))
            if file.is_file() and file.as_posix() not in REPORTING}
    values = p.model_dump()

    def own(method):
        if method == "references":
            return {}
        if method in OWN:
            return values[OWN[method]]
        return {**values["baseline"], "beta": values["baseline"]["beta"][method]}

    def fingerprint(method):
        parts = [code, data, {section: values[section] for section in COMMON}, own(method)]
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()

    return {method: fingerprint(method) for method in (*methods, "references")}


def signed(run):
    """`run` with its own SHA-256 in it, for the file that `make seeds` keeps."""
    return {**run, "sha256": hashlib.sha256(json.dumps(run, sort_keys=True).encode()).hexdigest()}


def _checked(file):
    """The run that `signed` wrote to `file`; raises `UserError` where it is another or damaged."""
    run = artifacts.load_json(file, checksum=False)
    digest = run.pop("sha256", None) if isinstance(run, dict) else None
    if digest is None or signed(run)["sha256"] != digest:
        raise UserError(f"{file}: damaged, or not made by this version's `make seeds`; remove it, and `make seeds` makes it anew")
    return run


def gather(run, folder=FOLDER):
    """Runs of all seeds, this one and those in `folder`, less what has another fingerprint, in the order of seeds.

    A run is {"seed", "fingerprints": {method: str}, "table": {method: numbers}}; `unimodal_vae` and `real` go by the
    fingerprint of the references. Raises `UserError` for a damaged file.
    """
    kept = [run]
    for file in sorted(Path(folder).glob("*.json")):
        other = _checked(file)
        if other["seed"] == run["seed"]:
            continue
        same = {method for method, value in run["fingerprints"].items() if other["fingerprints"].get(method) == value}
        table = {name: part for name, part in other["table"].items()
                 if (name if name in run["fingerprints"] else "references") in same}
        if len(same) < len(run["fingerprints"]):
            print(f"report: {file} was made with other data, parameters or code: left out of "
                  f"{', '.join(sorted(set(run['fingerprints']) - same))}; `make seeds` makes it anew", flush=True)
        kept.append({**other, "table": table})
    return sorted(kept, key=lambda each: each["seed"])


def summary(runs):
    """Mean and standard deviation (of the sample, n - 1) of every number over the runs that have it.

    Returns two tables: the means in the shape of the runs' tables, and the deviations, where there are two or more runs.
    """
    def combine(parts):
        if not isinstance(parts[0], dict):
            return statistics.fmean(parts), statistics.stdev(parts) if len(parts) > 1 else None
        pairs = {key: combine([part[key] for part in parts if key in part]) for key in parts[0]}
        deviations = {key: deviation for key, (_, deviation) in pairs.items() if deviation not in (None, {})}
        return {key: mean for key, (mean, _) in pairs.items()}, deviations

    names = list(dict.fromkeys(name for run in runs for name in run["table"]))
    pairs = {name: combine([run["table"][name] for run in runs if name in run["table"]]) for name in names}
    return {name: mean for name, (mean, _) in pairs.items()}, {name: spread for name, (_, spread) in pairs.items() if spread}
