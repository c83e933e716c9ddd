"""The claims as predicates: a table for which all hold, and one thing in it changed at a time."""

import pytest

from ebmvae.methods import ENERGIES, METHODS
from ebmvae.reporting import claims

NAMES = ["m1", "m2", "m3", "m4", "m5"]
LINES = {  # method: coherence and distance given none, and how they change with every observed one
    "eb_mvae": (0.5, 0.05, 50, -1),
    "eb_mvae_annealed": (0.5, 0.1, 45, -1),
    "poe": (0.1, 0.01, 60, 1),
    "moe": (0.4, 0, 90, 0),
    "mopoe": (0.3, 0.02, 80, 1),
    "mvtcae": (0.2, 0, 100, 0),
}


def cell(method, k):
    coherence, more, distance, further = LINES[method]
    numbers = {"distance": distance + k * further, "diversity": 1.0}
    numbers["distance_to_unimodal_vae"] = {"eb_mvae": 10.0}.get(method, 20.0)
    return {**numbers, **({"coherence": coherence + k * more} if k else {})}


def table(*changes):
    """A table for which all claims hold, but for `changes`: (path, value)."""
    made = {m: {n: {f"given{k}": cell(m, k) for k in range(5)} for n in NAMES} for m in METHODS}
    for method in METHODS:
        all_agree = 0.6 if method == "eb_mvae_annealed" else 0.1
        agreement = {**dict.fromkeys(NAMES, 0.5), "m1": 0.2, "m5": 0.3}
        made[method]["unconditional"] = {"all_agree": all_agree, "agreement": agreement}
    for method in ENERGIES:
        made[method]["energy_auroc"] = 0.99
    made["unimodal_vae"] = {name: {"diversity": 4.0} for name in NAMES}
    # One cell in which the paper's energy is the better of the two.
    better = [("eb_mvae m2 given4 coherence", 0.95), ("eb_mvae m2 given4 distance", 39)]
    for path, value in [*better, ("eb_mvae m3 given4 diversity", 3.0), *changes]:
        *keys, last = path.split()
        part = made
        for key in keys:
            part = part[key]
        part[last] = value
    return made


def holding(made, **options):
    return [claim["holds"] for claim in claims.check(made, "distance", **options)]


def test_all_hold():
    assert holding(table()) == [True] * 15
    tie = table(("poe m2 given1 coherence", 0.6))
    assert holding(tie)[9]  # a tie with a baseline is still the best of all


CHANGES = [  # of each claim in turn, what makes it fail
    [("mopoe m3 given4 coherence", 0.7)],  # a tie is not the best here
    [(f"moe m3 given{k} distance", 45) for k in (1, 2, 3, 4)],
    [("eb_mvae m5 given3 coherence", 0.6)],  # no more than given two
    [("eb_mvae m3 given2 distance", 49.5)],
    [("mopoe m5 given1 distance", 85)],  # more than given four
    [("moe m5 given1 coherence", 0.46)],
    [("poe m5 given3 distance", 300)],
    [("eb_mvae unconditional agreement", {**dict.fromkeys(NAMES, 0.5), "m2": 0.1})],
    [("mopoe m3 given4 diversity", 3.5)],
    [("mvtcae m2 given1 coherence", 0.61)],
    [("mvtcae m5 given4 distance", 40.9)],
    [("eb_mvae_annealed m1 given3 coherence", 0.7)],
    [("eb_mvae_annealed m4 given3 distance", 43.001)],
    [("eb_mvae_annealed unconditional all_agree", 0.59)],
    [("eb_mvae_annealed energy_auroc", 0.98)],
]


@pytest.mark.parametrize("failing, changes", [*enumerate(CHANGES)])
def test_one_thing_changed_fails_one_claim(failing, changes):
    assert holding(table(*changes)) == [i != failing for i in range(15)]


def test_other_data_are_judged_by_our_claims_and_without_labels_by_those_on_distance():
    made = table()
    for method in METHODS:
        del made[method]["m4"], made[method]["m5"]
    assert holding(made, papers=False) == [True] * 6
    for method in METHODS:
        made[method]["unconditional"] = {}
        for name in NAMES[:3]:
            for numbers in made[method][name].values():
                numbers.pop("coherence", None)
    assert holding(made, papers=False) == [True] * 3


def test_each_seed_is_judged_by_itself():
    runs = [table(), table(("eb_mvae_annealed energy_auroc", 0.5)), table()]
    last = claims.check(table(), "distance", runs)[-1]
    assert last["holds"] and last["seeds"] == [True, False, True]


@pytest.mark.parametrize(
    "holds, seeds, expected",
    [
        (True, [], "holds"),
        (False, [False, False], "**fails**"),
        (False, [True, False], "within the spread"),
        (True, [False, False], "within the spread"),  # of means, but of no seed
    ],
)
def test_verdicts(holds, seeds, expected):
    assert claims.verdict({"holds": holds, "seeds": seeds}) == expected
