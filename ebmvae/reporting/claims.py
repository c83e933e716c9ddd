"""The paper's claims, and ours, as predicates over the measured numbers: no verdict by hand."""

from ebmvae.methods import BASELINES, ENERGIES, METHODS

PAPER_BASELINES = ("poe", "moe", "mopoe")  # the paper's claims are not about MVTCAE
PAPER_TARGETS = ("m3", "m5")  # those that the paper reports
OURS = "eb_mvae_annealed"
FLAT = 0.05  # a coherence that changes less, or a distance that relatively does, is flat


def check(table, distance, runs=(), papers=True):
    """Judge every claim on the means over seeds, and on each seed by itself.

    `table[method][target]["given1"]` holds "coherence" and `distance`, and so on (table.json);
    `runs` are such tables, one per seed; papers: whether the paper's claims are about these data.
    Returns a list of {"claim", "holds", "measured", "seeds"}: text, bool, the numbers as text, and
    for each seed whether the claim holds in it alone.
    """
    claims, *by_seed = (_judge(part, distance, papers) for part in (table, *runs))
    return [
        {**claim, "seeds": [seed["holds"] for seed in seeds]}
        for claim, *seeds in zip(claims, *by_seed, strict=True)
    ]


def verdict(claim):
    """`holds` or `fails`, on the mean and in every seed; else `within the spread` of the seeds."""
    verdicts = {claim["holds"], *claim["seeds"]}
    if len(verdicts) == 2:
        return "within the spread"
    return "holds" if claim["holds"] else "**fails**"


class Numbers:
    """How the claims look up the numbers of a table."""

    def __init__(self, table, distance):
        self.table, self.distance = table, distance
        first = table[OURS]
        self.targets = [
            key for key, cell in first.items() if isinstance(cell, dict) and "given0" in cell
        ]
        cells = first[self.targets[0]]
        self.steps = [key for key in cells if key.startswith("given") and key != "given0"]
        self.labelled = "coherence" in cells[self.steps[0]]

    def given(self, method, target, metric):
        """One target's values, by number observed."""
        return [self.table[method][target][step][metric] for step in self.steps]

    def first_and_last(self, method, target, metric):
        values = self.given(method, target, metric)
        return values[0], values[-1]

    def span(self, method, target, metric):
        """`given` as text."""
        return f"{method} {target} " + " → ".join(_short(self.given(method, target, metric)))

    def mean(self, method, metric, targets=None):
        """Over targets and numbers observed."""
        targets = targets or self.targets
        values = [value for target in targets for value in self.given(method, target, metric)]
        return sum(values) / len(values)


def _judge(table, distance, papers):
    """All claims on one table, without "seeds"."""
    numbers = Numbers(table, distance)
    claims = []
    if papers:
        claims += [_best_at_m3(numbers, "coherence", max), _best_at_m3(numbers, distance, min)]
        claims += [_rises(numbers), _falls(numbers), _poe_and_mopoe(numbers), _moe_is_flat(numbers)]
        claims += [_quality_or_coherence(numbers), _worst_at_m1_and_m5(numbers), _varied(numbers)]
    if numbers.labelled:
        claims.append(_best_everywhere(numbers, "coherence", max))
    claims.append(_best_everywhere(numbers, distance, min))
    claims += [_ours_rises(numbers)] if numbers.labelled else []
    claims.append(_ours_falls(numbers))
    claims += [_all_agree(numbers)] if numbers.labelled else []
    return [*claims, _auroc(numbers)]


def _claim(text, holds, measured):
    return {"claim": text, "holds": bool(holds), "measured": "; ".join(measured)}


# ---- the paper's, on five modalities of PolyMNIST


def _best_at_m3(numbers, metric, better):
    """better: max or min."""
    methods = ("eb_mvae", *BASELINES)
    values = {method: numbers.given(method, "m3", metric)[-1] for method in methods}
    rival = better(values[method] for method in PAPER_BASELINES)
    own = values["eb_mvae"]
    return _claim(
        f"EB-MVAE has the best {metric} for m3 given all others (against PoE, MoE, MoPoE)",
        better(own, rival) == own != rival,
        [f"{method} {_short([value])[0]}" for method, value in values.items()],
    )


def _rises(numbers):
    return _claim(
        "EB-MVAE's coherence rises with every further observed modality, for m3 and m5",
        all(increasing(numbers.given("eb_mvae", t, "coherence")) for t in PAPER_TARGETS),
        [numbers.span("eb_mvae", t, "coherence") for t in PAPER_TARGETS],
    )


def _falls(numbers):
    metric = numbers.distance
    return _claim(
        f"EB-MVAE's {metric} falls with every further observed modality, for m3 and m5",
        all(decreasing(numbers.given("eb_mvae", t, metric)) for t in PAPER_TARGETS),
        [numbers.span("eb_mvae", t, metric) for t in PAPER_TARGETS],
    )


def _poe_and_mopoe(numbers):
    cases = [
        (method, target, metric)
        for method in ("poe", "mopoe")
        for target in PAPER_TARGETS
        for metric in ("coherence", numbers.distance)
    ]
    ends = [numbers.first_and_last(*case) for case in cases]
    return _claim(
        f"PoE and MoPoE gain coherence but lose {numbers.distance} with more observed, for m3 and "
        "m5",
        all(last > first for first, last in ends),
        [numbers.span(*case) for case in cases],
    )


def _moe_is_flat(numbers):
    metric = numbers.distance
    holds = True
    for target in PAPER_TARGETS:
        first, last = numbers.first_and_last("moe", target, "coherence")
        near, far = numbers.first_and_last("moe", target, metric)
        holds &= abs(last - first) <= FLAT and abs(far / near - 1) <= FLAT
    spans = [numbers.span("moe", t, m) for t in PAPER_TARGETS for m in ("coherence", metric)]
    text = f"MoE is about flat (coherence within {FLAT}, {metric} within {FLAT:.0%}), for m3 and m5"
    return _claim(text, holds, spans)


def _quality_or_coherence(numbers):
    metric = numbers.distance
    means = {
        method: [numbers.mean(method, m, PAPER_TARGETS) for m in ("coherence", metric)]
        for method in PAPER_BASELINES
    }
    return _claim(
        "PoE has quality without coherence, MoE and MoPoE coherence without quality (mean over m3, "
        "m5 and observed)",
        all(means["poe"][k] < means[other][k] for other in ("moe", "mopoe") for k in (0, 1)),
        [
            f"{method} coherence {coherence:.3f}, {metric} {value:.3g}"
            for method, (coherence, value) in means.items()
        ],
    )


def _worst_at_m1_and_m5(numbers):
    agreement = numbers.table["eb_mvae"]["unconditional"]["agreement"]
    worst = sorted(agreement, key=agreement.get)[:2]
    return _claim(
        "Unconditional EB-MVAE is worst at m1 and m5 (how often a classifier agrees with most of "
        "the others)",
        set(worst) == {"m1", "m5"},
        [f"{target} {value:.3f}" for target, value in agreement.items()],
    )


def _varied(numbers):
    step, table = numbers.steps[-1], numbers.table
    ours, mopoe = (table[method]["m3"][step] for method in ("eb_mvae", "mopoe"))
    vae, key = table["unimodal_vae"]["m3"]["diversity"], "distance_to_unimodal_vae"
    closer = abs(ours["diversity"] - vae) < abs(mopoe["diversity"] - vae)
    measured = [
        f"{method} {row['diversity']:.3g}, distance to the VAE's {row[key]:.3g}"
        for method, row in (("eb_mvae", ours), ("mopoe", mopoe))
    ]
    return _claim(
        "EB-MVAE's m3 samples vary more than MoPoE's, and come closer to the unimodal VAE's in "
        "diversity and distance",
        ours["diversity"] > mopoe["diversity"] and closer and ours[key] < mopoe[key],
        [f"diversity: unimodal VAE {vae:.3g}", *measured],
    )


# ---- ours


def _best_everywhere(numbers, metric, better):
    """better: max or min."""
    cells = [(target, k) for target in numbers.targets for k in range(len(numbers.steps))]
    values = {m: [numbers.given(m, target, metric)[k] for target, k in cells] for m in METHODS}
    best = [better(column) for column in zip(*values.values(), strict=True)]
    best_energy = [better(c) for c in zip(*(values[m] for m in ENERGIES), strict=True)]
    form = ".3f" if metric == "coherence" else ".3g"
    return _claim(
        "Ours: for every target and number observed, the better EB-MVAE has the best "
        f"{metric} of all",
        best == best_energy,
        [f"{method} {numbers.mean(method, metric):{form}}" for method in METHODS],
    )


def _ours_rises(numbers):
    return _claim(
        "Ours: the annealed EB-MVAE's coherence rises with every further observed modality, for "
        "every target",
        all(increasing(numbers.given(OURS, t, "coherence")) for t in numbers.targets),
        [numbers.span(OURS, t, "coherence") for t in numbers.targets],
    )


def _ours_falls(numbers):
    metric = numbers.distance
    return _claim(
        f"Ours: the annealed EB-MVAE's {metric} falls with every further observed modality, for "
        "every target",
        all(decreasing(numbers.given(OURS, t, metric)) for t in numbers.targets),
        [numbers.span(OURS, t, metric) for t in numbers.targets],
    )


def _all_agree(numbers):
    shares = {m: numbers.table[m]["unconditional"]["all_agree"] for m in METHODS}
    return _claim(
        "Ours: all classifiers agree in at least 60 % of the annealed EB-MVAE's unconditional "
        "tuples",
        shares[OURS] >= 0.6,
        [f"{method} {value:.3f}" for method, value in shares.items()],
    )


def _auroc(numbers):
    auroc = {method: numbers.table[method]["energy_auroc"] for method in ENERGIES}
    return _claim(
        "Ours: the energy tells tuples with one modality swapped from matching ones, AUROC at "
        "least .99",
        auroc[OURS] >= 0.99,
        [f"{method} {value:.3f}" for method, value in auroc.items()],
    )


def increasing(values):
    """Whether each value is above the one before it."""
    return all(a < b for a, b in zip(values, values[1:], strict=False))


def decreasing(values):
    """Whether each value is below the one before it."""
    return increasing([-value for value in values])


def _short(values):
    return [f"{value:.3f}" if abs(value) < 1 else f"{value:.4g}" for value in values]


def markdown(claims, caption):
    """claims.md: the verdicts as a table, under the line that says where the numbers come from."""
    n = len(claims[0]["seeds"])
    holding = sum(verdict(claim) == "holds" for claim in claims)
    several = (
        f" The numbers are means over {n} seeds; a claim that holds in some of them only is within "
        "the spread."
    )
    lines = [
        "# The paper's claims and ours, measured",
        "",
        caption,
        "",
        f"{holding} of {len(claims)} hold. Every verdict is computed by "
        "`ebmvae/reporting/claims.py` from the numbers in `table.json`."
        + (several if n > 1 else ""),
        "",
        "| | Claim | Verdict | Measured |",
        "| --- | --- | --- | --- |",
    ]
    for i, claim in enumerate(claims, 1):
        seeds = f" ({sum(claim['seeds'])} of {n} seeds)" if n > 1 else ""
        verdict_text = verdict(claim) + seeds
        lines.append(f"| {i} | {claim['claim']} | {verdict_text} | {claim['measured']} |")
    return "\n".join(lines) + "\n"
