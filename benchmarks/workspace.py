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


def start(folder, module, *arguments):
    """Run `python -m module arguments` in `folder`; the finished process."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run([sys.executable, "-m", module, *arguments], cwd=folder, env=environment, text=True,
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def checked(done):
    """What such a process printed. Its errors go to the terminal if it failed, and this program ends."""
    if done.returncode:
        sys.exit(f"{done.stderr}\nerror: `python {' '.join(done.args[1:])}` failed")
    return done.stdout


def python(folder, module, *arguments):
    """Run `python -m module arguments` in `folder`; its standard output."""
    return checked(start(folder, module, *arguments))


def measured(folder, module, *arguments):
    """What such a command prints as JSON in its last line."""
    return last_line(python(folder, module, *arguments))


def attempted(folder, module, *arguments):
    """The same, or None where the command found no memory."""
    done = start(folder, module, *arguments)
    if done.returncode and any(error in done.stderr for error in ("not enough memory", "can't allocate memory", "MemoryError")):
        return None
    return last_line(checked(done))


def last_line(output):
    return json.loads(output.strip().splitlines()[-1])


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
    kept = {"conditions": {**old.get("conditions", {}), **conditions}, "rows": list(merged.values())}
    RESULTS.write_text(json.dumps(kept, indent=1) + "\n")
    splice(BEGIN, END, table(merged.values()))


def splice(begin, end, text):
    """Put `text` between the lines `begin` and `end` of the README."""
    page = PAGE.read_text()
    before, after = page.split(begin)[0], page.split(end)[1]
    PAGE.write_text(before + begin + "\n" + text + "\n" + end + after)


def number(value):
    """Four digits or all before the point: 0.1235, 638.7, 30,890."""
    return f"{value:,.0f}" if value >= 1000 else f"{value:.4g}"


def table(rows):
    """results.json's rows as a Markdown table."""
    show = lambda value, form: "" if value is None else format(value, form)
    lines = ["| what | ours | spread | unit | peer | ours / peer | share of the floor's rate | peak memory, MiB | n | device |",
             "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |"]
    for row in rows:
        peak = row.get("peak_mib")
        peer = None if row.get("peer") is None else number(row["peer"])
        lines.append(f"| {row['name']} | {number(row['ours'])} | ± {row['spread']:.0%} | {row['unit']} | {show(peer, '')} "
                     f"| {show(row.get('ratio'), '.2f')} | {show(row.get('floor_ratio'), '.0%')} | {show(peak, ',.0f')} "
                     f"| {row['n']} | {row['device']} |")
    return "\n".join(lines)
