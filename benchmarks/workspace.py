"""A temporary folder in which stages run as users run them, with sizes of their own.

And what is kept of measurements: benchmarks/results.json and the table in the README.
"""

import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results.json"
PAGE = ROOT / "benchmarks" / "README.md"
BEGIN, END = "<!-- table: begin -->", "<!-- table: end -->"
OUT_OF_MEMORY = ("not enough memory", "can't allocate memory", "MemoryError")


def cores():
    """CPU cores that this process may use; on macOS, which does not tell, all there are."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def set_params(folder, overrides):
    """Write FOLDER/params.yaml: the project's, with `overrides` ({"vae.epochs": 1})."""
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
    return subprocess.run(
        [sys.executable, "-m", module, *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        text=True,
        capture_output=True,
    )


def checked(process):
    """What a finished process printed; if it failed, this program ends with its errors."""
    if process.returncode:
        command = " ".join(process.args[1:])
        sys.exit(f"{process.stderr}\nerror: `python {command}` failed")
    return process.stdout


def python(folder, module, *arguments):
    """Run `python -m module arguments` in `folder`; its standard output."""
    return checked(start(folder, module, *arguments))


def measured(folder, module, *arguments):
    """What such a command prints as JSON in its last line."""
    return last_line(python(folder, module, *arguments))


def attempted(folder, module, *arguments):
    """The same, or None where the memory did not suffice."""
    process = start(folder, module, *arguments)
    if process.returncode and any(error in process.stderr for error in OUT_OF_MEMORY):
        return None
    return last_line(checked(process))


def last_line(output):
    return json.loads(output.strip().splitlines()[-1])


def middle(rates):
    """Median of rates, and half the distance between their quartiles relative to it."""
    low, median, high = statistics.quantiles(rates, n=4)
    return median, (high - low) / 2 / median


def keep(program, rows, about):
    """Put the rows of one program into results.json, and write the README's table from it.

    program: `peers`, whose rows have a peer, or `throughput`, whose rows have none. The rows that
    it made before go.
    """
    old = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    others = [
        row for row in old.get("rows", []) if (row["peer"] is not None) != (program == "peers")
    ]
    rows = [{key: _four_digits(value) for key, value in row.items()} for row in rows]
    rows = [*rows, *others] if program == "peers" else [*others, *rows]
    conditions = {**old.get("conditions", {}), program: about}
    RESULTS.write_text(json.dumps({"conditions": conditions, "rows": rows}, indent=1) + "\n")
    splice(BEGIN, END, table(rows))


def _four_digits(value):
    return float(f"{value:.4g}") if isinstance(value, float) else value


def splice(begin, end, text):
    """Put `text` between the lines `begin` and `end` of the README."""
    page = PAGE.read_text()
    before, after = page.split(begin)[0], page.split(end)[1]
    PAGE.write_text(f"{before}{begin}\n{text}\n{end}{after}")


def number(value):
    """Four digits or all before the point: 0.1235, 638.7, 30,890."""
    return f"{value:,.0f}" if value >= 1000 else f"{value:.4g}"


def table(rows):
    """results.json's rows as a Markdown table."""

    def text(row, key, form):
        return "" if row.get(key) is None else form(row[key])

    columns = {
        "what": lambda row: row["name"],
        "ours": lambda row: number(row["ours"]),
        "spread": lambda row: f"± {row['spread']:.0%}",
        "unit": lambda row: row["unit"],
        "peer": lambda row: text(row, "peer", number),
        "ours / peer": lambda row: text(row, "ratio", "{:.2f}".format),
        "share of the floor's rate": lambda row: text(row, "floor_ratio", "{:.0%}".format),
        "peak memory, MiB": lambda row: text(row, "peak_mib", "{:,.0f}".format),
        "n": lambda row: str(row["n"]),
        "device": lambda row: row["device"],
    }
    lines = [list(columns), ["---"] * len(columns)]
    lines += [[column(row) for column in columns.values()] for row in rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
