"""Write the results of README.md anew from reports/table.json, between two marks.

python -m tools.readme            # --check: only say whether README.md is up to date
"""

import sys
from pathlib import Path

from ebmvae import command
from ebmvae.core import artifacts
from ebmvae.core.messages import UserError
from ebmvae.methods import METHODS
from ebmvae.reporting import results
from ebmvae.reporting.formats import amount, share

README, TABLE = Path("README.md"), Path("reports/table.json")
BEGIN, END = "<!-- results: begin -->", "<!-- results: end -->"


def main():
    parser = command.parser(__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; 1 where it would")
    args = parser.parse_args()
    try:
        before = README.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{README}: can't be read ({error})") from None
    after = fill(before, block(artifacts.load_json(TABLE, checksum=False)))
    if args.check and after != before:
        sys.exit(f"{README} is older than {TABLE}; `python -m tools.readme` writes it anew")
    if after != before:
        artifacts.write(README, after.encode(), checksum=False)


def fill(text, content):
    """`text` with `content` between the two marks. Raises `UserError` unless it has each once."""
    head, begin, rest = text.partition(BEGIN)
    _, end, tail = rest.partition(END)
    if not (begin and end) or BEGIN in rest or END in head + tail:
        raise UserError(f"{README} should have the lines {BEGIN} and {END} once, in this order")
    return f"{head}{BEGIN}\n{content}{END}{tail}"


def block(table):
    """Markdown for the content of reports/table.json: where the numbers come from, and a table."""
    methods = [method for method in METHODS if method in table]
    first = table[methods[0]]
    names = [key for key, cells in first.items() if isinstance(cells, dict) and "given1" in cells]
    forms = {"coherence": share, "fid": amount, "frechet_polymnist": amount}
    metrics = {key: form for key, form in forms.items() if key in first[names[0]]["given1"]}
    sizes = (1, len(names) - 1)
    numbers = results.key_numbers(table, table["standard_deviation"], names, metrics, sizes)
    # Lines of at most 100 characters: a shorter name, and without the last column, the AUROC.
    lines = numbers.replace("Fréchet distance", "distance").splitlines()
    numbers = "\n".join(line.rsplit("|", 2)[0] + "|" for line in lines)
    seeds = sorted({seed for method in methods for seed in table["seeds"][method]})
    origin = (
        f"{table['dataset']}, profile `{table['profile']}`, seed {', '.join(map(str, seeds))}, "
        f"device {table['device']}, {table['samples_per_cell']:,} samples per cell:"
    )
    return f"{origin}\n\n{numbers}\n"


if __name__ == "__main__":
    command.run(main)
