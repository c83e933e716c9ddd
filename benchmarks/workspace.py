"""A temporary folder in which stages run as users run them, with sizes of their own; and `benchmarks/results.json`."""

import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

import yaml

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results.json"
PAGE = ROOT / "benchmarks" / "README.md"
BEGIN, END = "<!-- table: begin -->", "<!-- table: end -->"


def set_params(folder, overrides):
    """Write `folder`/params.yaml: the project's, with `overrides` ({"vae.epochs": 1}) in their places."""
    content = yaml.safe_load((ROOT / "params.yaml").read_text())
    for key, value in overrides.items():
        *sections, name = key.split(".")
        place = content
        for section in sections:
            place = place[section]
        if name not in place:
            raise KeyError(f"params.yaml has no {key}")
        place[name] = value
    (Path(folder) / "params.yaml").write_text(yaml.safe_dump(content))


def python(folder, module, *arguments):
    """Run `python -m module arguments` in `folder`; its standard output. Its errors go to the terminal if it fails."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-m", module, *arguments], cwd=folder, env=environment, text=True,
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    if done.returncode:
        sys.exit(f"{done.stderr}\nerror: `python -m {module} {' '.join(arguments)}` failed in {folder}")
    return done.stdout


def measured(folder, module, *arguments):
    """What such a command prints as JSON in its last line."""
    return json.loads(python(folder, module, *arguments).strip().splitlines()[-1])


def middle(rates):
    """Median of at least five rates, and half the distance between their quartiles relative to it."""
    low, median, high = statistics.quantiles(rates, n=4)
    return median, (high - low) / 2 / median


def keep(rows, conditions):
    """Put `rows` into results.json, in place of older ones of the same name, and write the README's table from it."""
    old = json.loads(RESULTS.read_text()) if RESULTS.exists() else {"rows": []}
    merged = {row["name"]: row for row in old["rows"]}
    for row in rows:
        merged[row["name"]] = {key: float(f"{value:.4g}") if isinstance(value, float) else value for key, value in row.items()}
    RESULTS.write_text(json.dumps({"conditions": {**old.get("conditions", {}), **conditions}, "rows": list(merged.values())}, indent=1) + "\n")
    page = PAGE.read_text()
    before, after = page.split(BEGIN)[0], page.split(END)[1]
    PAGE.write_text(before + BEGIN + "\n" + table(merged.values()) + "\n" + END + after)


def table(rows):
    """results.json's rows as a Markdown table."""
    show = lambda value, form: "" if value is None else format(value, form)
    lines = ["| what | ours | spread | unit | peer | ours / peer | share of the floor's rate | peak memory, MiB | n | device |",
             "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |"]
    for row in rows:
        peak = row.get("peak_mib")
        lines.append(f"| {row['name']} | {row['ours']:,.4g} | ± {row['spread']:.0%} | {row['unit']} | {show(row.get('peer'), ',.4g')} "
                     f"| {show(row.get('ratio'), '.2f')} | {show(row.get('floor_ratio'), '.0%')} | {show(peak, ',.0f')} "
                     f"| {row['n']} | {row['device']} |")
    return "\n".join(lines)
