"""The claims as predicates: a table for which all of ours hold, and one number changed at a time."""

import pytest

from stages.lib import claims

NAMES = ["m1", "m2", "m3", "m4", "m5"]
METHODS = ["eb_mvae", "eb_mvae_annealed", "poe", "moe", "mopoe", "mvtcae"]


def table():
    """What `report.tabulate` makes; the two energies share the best cells: one is better given few, one given many."""
    made = {}
    for method in METHODS:
        ours = method == "eb_mvae_annealed"
        coherence = lambda k: 0.5 + 0.1 * k if ours else 0.95 if (method, k) == ("eb_mvae", 4) else 0.4
        distance = lambda k: 50.0 - k if ours else 40.0 if (method, k) == ("eb_mvae", 4) else 60.0
        cell = lambda k: {"distance": distance(k), "diversity": 1.0, "distance_to_unimodal_vae": 1.0,
                          **({"coherence": coherence(k)} if k else {})}
        made[method] = {name: {f"given{k}": cell(k) for k in range(5)} for name in NAMES}
        made[method]["unconditional"] = {"all_agree": 0.6 if ours else 0.1, "agreement": dict.fromkeys(NAMES, 0.5)}
    for method in ("eb_mvae", "eb_mvae_annealed"):
        made[method]["energy_auroc"] = 0.99
    made["unimodal_vae"] = {name: {"coherence": 0.9, "distance": 30.0, "diversity": 1.0} for name in NAMES}
    return made


def ours(made):
    return [c["holds"] for c in claims.check(made, "distance") if c["claim"].startswith("Ours")]


def test_ours_hold_by_the_better_of_the_two_energies():
    assert ours(table()) == [True] * 6


@pytest.mark.parametrize("path, value, failing", [
    (("poe", "m2", "given1", "coherence"), 0.61, 0),  # a baseline is better at one cell
    (("mvtcae", "m5", "given4", "distance"), 39.9, 1),
    (("eb_mvae_annealed", "m1", "given3", "coherence"), 0.7, 2),  # no more than given two
    (("eb_mvae_annealed", "m4", "given3", "distance"), 48.001, 3),  # more than given two
    (("eb_mvae_annealed", "unconditional", "all_agree"), 0.59, 4),
    (("eb_mvae_annealed", "energy_auroc"), 0.98, 5),
])
def test_one_number_fails_one_of_ours(path, value, failing):
    made = table()
    part = made
    for key in path[:-1]:
        part = part[key]
    part[path[-1]] = value
    assert ours(made) == [i != failing for i in range(6)]


def test_a_tie_with_a_baseline_is_still_the_best():
    made = table()
    made["poe"]["m2"]["given1"]["coherence"] = made["eb_mvae_annealed"]["m2"]["given1"]["coherence"]
    assert ours(made) == [True] * 6


def test_other_data_are_judged_by_our_claims_alone_and_without_labels_by_those_on_distance():
    made = {method: {k: v for k, v in part.items() if k not in ("m4", "m5")} for method, part in table().items()}
    found = claims.check(made, "distance", papers=False)
    assert len(found) == 6 and all(c["holds"] and c["claim"].startswith("Ours") for c in found)
    for method in METHODS:
        made[method]["unconditional"] = {}
        for target in NAMES[:3]:
            for cell in made[method][target].values():
                cell.pop("coherence", None)
    assert [c["holds"] for c in claims.check(made, "distance", papers=False)] == [True] * 3
    assert not any("coherence" in c["claim"] for c in claims.check(made, "distance", papers=False))


def test_each_seed_is_judged_by_itself():
    bad = table()
    bad["eb_mvae_annealed"]["energy_auroc"] = 0.5
    last = claims.check(table(), "distance", [table(), bad, table()])[-1]
    assert last["holds"] and last["seeds"] == [True, False, True]


@pytest.mark.parametrize("holds, seeds, expected", [
    (True, [], "holds"), (False, [], "**fails**"), (True, [True, True], "holds"), (False, [False, False], "**fails**"),
    (True, [True, False], "within the spread"), (False, [True, False], "within the spread"),
    (True, [False, False], "within the spread"),  # of means, but of no seed
])
def test_verdicts(holds, seeds, expected):
    assert claims.verdict({"holds": holds, "seeds": seeds}) == expected


def test_markdown_numbers_and_counts_the_claims():
    judged = [{"claim": "a", "holds": True, "measured": "1", "seeds": []},
              {"claim": "b", "holds": False, "measured": "2", "seeds": []}]
    page = claims.markdown(judged, "where from").splitlines()
    assert page[2] == "where from" and page[4].startswith("1 of 2 hold.") and "seeds" not in page[4]
    assert page[-2:] == ["| 1 | a | holds | 1 |", "| 2 | b | **fails** | 2 |"]


def test_markdown_counts_the_seeds():
    judged = [{"claim": "a", "holds": True, "measured": "1", "seeds": [True, True]},
              {"claim": "b", "holds": True, "measured": "2", "seeds": [True, False]}]
    page = claims.markdown(judged, "where from").splitlines()
    assert page[4].startswith("1 of 2 hold.") and "means over 2 seeds" in page[4]
    assert page[-2:] == ["| 1 | a | holds (2 of 2 seeds) | 1 |", "| 2 | b | within the spread (1 of 2 seeds) | 2 |"]
