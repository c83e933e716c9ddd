"""All tables in Markdown, the generated file reports/results.md."""

import statistics
from collections.abc import Callable, Mapping, Sequence

from ebmvae.methods import METHODS, REFERENCES
from ebmvae.reporting.formats import MISSING, amount, label, share, short_label


def markdown(
    table: Mapping, spread: Mapping, names: Sequence[str], distance: str, caption: str
) -> str:
    """results.md: key numbers, each target, upper bounds and unconditional agreement.

    `table[method][target]["given1"]` holds "coherence" and `distance`, and so on; `spread` holds
    the standard deviations over seeds in the same shape, where there are several. Both are those of
    seeds.summary. `names` are the modalities; `caption` says where the numbers come from. Data
    without labels have no coherence and no agreement: their columns and tables are missing.
    """
    methods = [method for method in METHODS if method in table]
    labelled = "coherence" in table[methods[0]][names[0]]["given1"]
    metrics = {"coherence": share} if labelled else {}
    metrics[distance] = amount
    rule = "Coherence: more is better. " if labelled else ""
    rule += f"{short_label(distance)}: less is better."
    deviations = " After a ± stands the standard deviation over seeds." if spread else ""
    parts = [
        "# Results",
        f"{caption}. Made by the stage `report` from the numbers in `table.json`.",
        f"{rule}{deviations}",
        "## Key numbers",
        "Means over all targets and over the observed subsets of a size. AUROC: of the energy, "
        "matching against mismatched tuples.",
        key_numbers(table, spread, names, metrics, range(1, len(names))),
    ]
    for name in names:
        parts += [f"## {name}, by number observed"]
        parts += [_target(table, spread, methods, name, metrics)]
    parts += ["## Upper bounds", _upper_bounds(table, spread, names, metrics)]
    if labelled:
        parts += [
            "## Unconditional agreement",
            "How often a modality's classifier agrees with most of the others, and how often all "
            "agree, in unconditional tuples.",
            _agreement(table, spread, methods, names),
        ]
    return "\n\n".join(parts) + "\n"


def key_numbers(table, spread, names, metrics, sizes) -> str:
    """A row per method; means over targets stand without a deviation, which `spread` lacks.

    metrics: how the numbers of each metric are written, in the order of columns; sizes: the
    numbers observed that have a column.
    """
    heads = ["method", *(f"{short_label(m)} given {size}" for m in metrics for size in sizes)]
    single = [("AUROC", ("energy_auroc",))]
    if "coherence" in metrics:
        single.insert(0, ("all agree", ("unconditional", "all_agree")))
    heads += [head for head, _ in single]
    rows = []
    for method in filter(table.__contains__, METHODS):
        means = [
            text(statistics.fmean(table[method][name][f"given{size}"][metric] for name in names))
            for metric, text in metrics.items()
            for size in sizes
        ]
        others = [_number(table, spread, (method, *path), share) for _, path in single]
        rows.append([label(method), *means, *others])
    return _table(heads, rows)


def _target(table, spread, methods, name, metrics) -> str:
    """A row per method: every metric of one target by number observed, from none to all others."""
    keys = list(table[methods[0]][name])
    columns = [
        (metric, key)
        for metric in metrics
        for key in keys
        if any(metric in table[method][name].get(key, {}) for method in methods)
    ]
    heads = [f"{short_label(metric)} given {key.removeprefix('given')}" for metric, key in columns]
    rows = [
        [
            label(method),
            *(_number(table, spread, (method, name, key, m), metrics[m]) for m, key in columns),
        ]
        for method in methods
    ]
    return _table(["method", *heads], rows)


def _upper_bounds(table, spread, names, metrics) -> str:
    """A row per target: every metric and the diversity of each reference."""
    columns = [
        (reference, metric, text)
        for reference in REFERENCES
        for metric, text in {**metrics, "diversity": amount}.items()
    ]
    heads = [f"{label(reference)}: {short_label(metric)}" for reference, metric, _ in columns]
    rows = [
        [
            name,
            *(_number(table, spread, (ref, name, metric), text) for ref, metric, text in columns),
        ]
        for name in names
    ]
    return _table(["target", *heads], rows)


def _agreement(table, spread, methods, names) -> str:
    paths = [("unconditional", "agreement", name) for name in names]
    paths.append(("unconditional", "all_agree"))
    rows = [
        [label(method), *(_number(table, spread, (method, *path), share) for path in paths)]
        for method in methods
    ]
    return _table(["method", *names, "all agree"], rows)


def _number(
    table: Mapping, spread: Mapping, path: Sequence[str], text: Callable[[float], str]
) -> str:
    """The number at `path` with its standard deviation, where there is one."""
    value, deviation = _at(table, path), _at(spread, path)
    if value is None:
        return MISSING
    return text(value) if deviation is None else f"{text(value)} ± {text(deviation)}"


def _at(tree: Mapping, path: Sequence[str]) -> float | None:
    for key in path:
        if key not in tree:
            return None
        tree = tree[key]
    return tree


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table: the first column is text, all others are numbers."""
    align = ["---"] + ["---:"] * (len(heads) - 1)
    lines = [_escaped(heads), align, *map(_escaped, rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _escaped(line: Sequence[str]) -> list[str]:
    return [text.replace("|", "\\|") for text in line]
