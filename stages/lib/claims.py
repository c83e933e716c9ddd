"""The paper's claims, and ours, as predicates over the measured grid: pure functions of table.json's numbers, no verdict by hand."""

BASELINES = ("poe", "moe", "mopoe", "mvtcae")
PAPERS_BASELINES = ("poe", "moe", "mopoe")  # MVTCAE is ours to compare with: the paper's claims are not about it
TARGETS = ("m3", "m5")  # those the paper reports
FLAT = 0.05  # a coherence that changes less, or a distance that changes relatively less, is flat


def check(table, distance, runs=(), papers=True):
    """Judge every claim on the means over seeds, and on each seed by itself; the paper's where `papers`, else ours alone.

    `table[method][target]["given1"]` holds "coherence" and `distance`, and so on (table.json); `runs` are such tables, one
    a seed. Returns a list of {"claim", "holds", "measured", "seeds"}: text, bool, the numbers as text, and for each seed
    whether the claim holds in it alone.
    """
    judge = lambda table: [*(judge_papers(table, distance) if papers else []), *judge_ours(table, distance)]
    alone = [[c["holds"] for c in judge(run)] for run in runs]
    return [{**claim, "seeds": list(of)} for claim, *of in zip(judge(table), *alone)]


def verdict(claim):
    """`holds` on the mean and in every seed, `fails` on the mean and in every seed, or `within the spread` of the seeds."""
    found = {claim["holds"], *claim["seeds"]}
    return "within the spread" if len(found) == 2 else "holds" if claim["holds"] else "**fails**"


def reader(table):
    """How the claims look things up: the keys of all sizes, `given` (one target's values by size), `at` (one of them), and
    `span` (them as text)."""
    steps = [key for key in table["eb_mvae"]["m1"] if key.startswith("given") and key != "given0"]
    given = lambda method, target, metric: [table[method][target][step][metric] for step in steps]
    at = lambda method, target, metric, step=steps[-1]: table[method][target][step][metric]
    span = lambda method, target, metric: f"{method} {target} " + " → ".join(_short(given(method, target, metric)))
    return steps, given, at, span


def _claim(text, holds, *measured):
    return {"claim": text, "holds": bool(holds), "measured": "; ".join(measured)}


def judge_papers(table, distance):
    """Judge the paper's claims on one table of PolyMNIST's five modalities, as `check`; without "seeds"."""
    steps, given, at, span = reader(table)
    first, last, claims = steps[0], steps[-1], []
    claim = lambda *parts: claims.append(_claim(*parts))
    for metric, better, what in (("coherence", max, "coherence"), (distance, min, distance)):
        values = {method: at(method, "m3", metric) for method in ("eb_mvae", *BASELINES)}
        best = better(PAPERS_BASELINES, key=values.get)
        claim(f"EB-MVAE has the best {what} for m3 given all others (against PoE, MoE, MoPoE)",
              better(values["eb_mvae"], values[best]) == values["eb_mvae"] != values[best],
              *(f"{method} {_short([value])[0]}" for method, value in values.items()))
    claim("EB-MVAE's coherence rises with every further observed modality, for m3 and m5",
          all(_rises(given("eb_mvae", t, "coherence")) for t in TARGETS), *(span("eb_mvae", t, "coherence") for t in TARGETS))
    claim(f"EB-MVAE's {distance} falls with every further observed modality, for m3 and m5",
          all(_rises([-v for v in given("eb_mvae", t, distance)]) for t in TARGETS),
          *(span("eb_mvae", t, distance) for t in TARGETS))
    claim(f"PoE and MoPoE gain coherence but lose {distance} with more observed, for m3 and m5",
          all(at(method, t, metric, last) > at(method, t, metric, first)
              for method in ("poe", "mopoe") for t in TARGETS for metric in ("coherence", distance)),
          *(span(method, t, metric) for method in ("poe", "mopoe") for t in TARGETS for metric in ("coherence", distance)))
    claim(f"MoE is about flat (coherence within {FLAT}, {distance} within {FLAT:.0%}), for m3 and m5",
          all(abs(at("moe", t, "coherence", last) - at("moe", t, "coherence", first)) <= FLAT
              and abs(at("moe", t, distance, last) / at("moe", t, distance, first) - 1) <= FLAT for t in TARGETS),
          *(span("moe", t, metric) for t in TARGETS for metric in ("coherence", distance)))
    mean = lambda method, metric: sum(sum(given(method, t, metric)) for t in TARGETS) / len(TARGETS) / len(steps)
    claim("PoE has quality without coherence, MoE and MoPoE coherence without quality (mean over m3, m5 and observed)",
          all(mean("poe", distance) < mean(other, distance) and mean("poe", "coherence") < mean(other, "coherence")
              for other in ("moe", "mopoe")),
          *(f"{method} coherence {mean(method, 'coherence'):.3f}, {distance} {mean(method, distance):.3g}"
            for method in PAPERS_BASELINES))
    agreement = table["eb_mvae"]["unconditional"]["agreement"]
    claim("Unconditional EB-MVAE is worst at m1 and m5 (how often a judge agrees with most of the others)",
          set(sorted(agreement, key=agreement.get)[:2]) == {"m1", "m5"},
          *(f"{target} {value:.3f}" for target, value in agreement.items()))
    row = {method: table[method]["m3"][last] for method in ("eb_mvae", "mopoe")}
    vae = table["unimodal_vae"]["m3"]["diversity"]
    claim("EB-MVAE's m3 samples vary more than MoPoE's, and come closer to the unimodal VAE's in diversity and distance",
          row["eb_mvae"]["diversity"] > row["mopoe"]["diversity"]
          and abs(row["eb_mvae"]["diversity"] - vae) < abs(row["mopoe"]["diversity"] - vae)
          and row["eb_mvae"]["distance_to_unimodal_vae"] < row["mopoe"]["distance_to_unimodal_vae"],
          f"diversity: unimodal VAE {vae:.3g}",
          *(f"{method} {r['diversity']:.3g}, distance to the VAE's {r['distance_to_unimodal_vae']:.3g}" for method, r in row.items()))
    return claims


def judge_ours(table, distance):
    """Judge our claims on one table, as `check`; without "seeds". Those about coherence need data with labels."""
    steps, given, at, span = reader(table)
    ours, claims = "eb_mvae_annealed", []
    claim = lambda *parts: claims.append(_claim(*parts))
    every = [target for target, cell in table[ours].items() if isinstance(cell, dict) and "given0" in cell]
    labelled = "coherence" in table[ours][every[0]][steps[0]]
    rows = ("eb_mvae", ours, *BASELINES)
    best = lambda metric, better: all(
        better(at(m, t, metric, step) for m in ("eb_mvae", ours)) == better(at(m, t, metric, step) for m in rows)
        for t in every for step in steps)
    over = lambda method, metric: sum(sum(given(method, t, metric)) for t in every) / len(every) / len(steps)
    if labelled:
        claim("Ours: for every target and number observed, the better EB-MVAE has the best coherence of all",
              best("coherence", max), *(f"{method} {over(method, 'coherence'):.3f}" for method in rows))
    claim(f"Ours: for every target and number observed, the better EB-MVAE has the best {distance} of all",
          best(distance, min), *(f"{method} {over(method, distance):.3g}" for method in rows))
    if labelled:
        claim("Ours: the annealed EB-MVAE's coherence rises with every further observed modality, for every target",
              all(_rises(given(ours, t, "coherence")) for t in every), *(span(ours, t, "coherence") for t in every))
    claim(f"Ours: the annealed EB-MVAE's {distance} falls with every further observed modality, for every target",
          all(_rises([-v for v in given(ours, t, distance)]) for t in every), *(span(ours, t, distance) for t in every))
    if labelled:
        whole = {method: table[method]["unconditional"]["all_agree"] for method in rows}
        claim("Ours: all judges agree in at least 60 % of the annealed EB-MVAE's unconditional tuples", whole[ours] >= 0.6,
              *(f"{method} {value:.3f}" for method, value in whole.items()))
    auroc = {method: table[method]["energy_auroc"] for method in ("eb_mvae", ours)}
    claim("Ours: the energy tells tuples with one modality swapped from matching ones, AUROC at least .99", auroc[ours] >= 0.99,
          *(f"{method} {value:.3f}" for method, value in auroc.items()))
    return claims


def _rises(values):
    """Whether each value is above the one before it."""
    return all(a < b for a, b in zip(values, values[1:]))


def _short(values):
    return [f"{value:.3f}" if abs(value) < 1 else f"{value:.4g}" for value in values]


def markdown(claims, provenance):
    """claims.md: the verdicts as a table, under the line that says where the numbers come from."""
    n = len(claims[0]["seeds"])
    lines = ["# The paper's claims and ours, measured", "", provenance, "",
             f"{sum(verdict(c) == 'holds' for c in claims)} of {len(claims)} hold. Every verdict is computed by "
             "`stages/lib/claims.py` from the numbers in `table.json`."
             + (f" The numbers are means over {n} seeds; a claim that holds in some of them only is within the spread."
                if n > 1 else ""), "",
             "| | Claim | Verdict | Measured |", "| --- | --- | --- | --- |"]
    for i, c in enumerate(claims, 1):
        seeds = f" ({sum(c['seeds'])} of {n} seeds)" if n > 1 else ""
        lines.append(f"| {i} | {c['claim']} | {verdict(c)}{seeds} | {c['measured']} |")
    return "\n".join(lines) + "\n"
