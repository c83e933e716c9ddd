"""results.md: every number in its row and column."""

from ebmvae.reporting import results

NAMES = ["m1", "m2"]
CAPTION = "Toy data; seeds 0, 1"


def table_of(labelled=True):
    table = {}
    for m, method in enumerate(("eb_mvae", "poe")):
        table[method] = {
            name: {
                "given0": {"fid": 300.0 + 10 * m + t},
                "given1": {"coherence": 0.5 + 0.1 * m + 0.2 * t, "fid": 200.0 + 10 * m + 2 * t},
            }
            for t, name in enumerate(NAMES)
        }
        table[method]["unconditional"] = {
            "all_agree": 0.25 + m / 2,
            "agreement": {"m1": 0.3 + 0.1 * m, "m2": 0.4},
        }
    table["eb_mvae"]["energy_auroc"] = 0.9
    for reference in ("unimodal_vae", "real"):
        table[reference] = {
            name: {"coherence": 0.99, "fid": 8.26, "diversity": 500.0} for name in NAMES
        }
    if not labelled:
        for method, reference in (("eb_mvae", "unimodal_vae"), ("poe", "real")):
            table[method]["unconditional"] = {}
            for name in NAMES:
                del table[method][name]["given1"]["coherence"]
                del table[reference][name]["coherence"]
    return table


def sections(text):
    """{heading: rows of cells} of every section, without the line of alignments."""
    tables = {}
    for part in text.split("\n## ")[1:]:
        heading, *lines = part.splitlines()
        rows = [line.strip("| ").split(" | ") for line in lines if line.startswith("|")]
        assert len({len(row) for row in rows}) == 1
        tables[heading] = [rows[0], *rows[2:]]
    return tables


def test_every_number_stands_in_its_row_and_column():
    text = results.markdown(table_of(), {}, NAMES, "fid", CAPTION)
    assert CAPTION in text and "±" not in text
    assert sections(text) == {
        "Key numbers": [
            ["method", "coherence given 1", "FID given 1", "all agree", "AUROC"],
            ["EB-MVAE", ".600", "201", ".250", ".900"],
            ["PoE (MVAE)", ".700", "211", ".750", "–"],
        ],
        "m1, by number observed": [
            ["method", "coherence given 1", "FID given 0", "FID given 1"],
            ["EB-MVAE", ".500", "300", "200"],
            ["PoE (MVAE)", ".600", "310", "210"],
        ],
        "m2, by number observed": [
            ["method", "coherence given 1", "FID given 0", "FID given 1"],
            ["EB-MVAE", ".700", "301", "202"],
            ["PoE (MVAE)", ".800", "311", "212"],
        ],
        "Upper bounds": [
            [
                "target",
                *("unimodal VAE: " + metric for metric in ("coherence", "FID", "diversity")),
                *("real images: " + metric for metric in ("coherence", "FID", "diversity")),
            ],
            ["m1", *[".990", "8.3", "500"] * 2],
            ["m2", *[".990", "8.3", "500"] * 2],
        ],
        "Unconditional agreement": [
            ["method", "m1", "m2", "all agree"],
            ["EB-MVAE", ".300", ".400", ".250"],
            ["PoE (MVAE)", ".400", ".400", ".750"],
        ],
    }


def test_deviations_stand_where_there_are_several_seeds():
    spread = {
        "eb_mvae": {
            "m1": {"given1": {"coherence": 0.0126, "fid": 3.21}},
            "unconditional": {"all_agree": 0.05, "agreement": {"m1": 0.02}},
            "energy_auroc": 0.001,
        }
    }
    tables = sections(results.markdown(table_of(), spread, NAMES, "fid", CAPTION))
    rows = tables["m1, by number observed"]
    assert rows[1] == ["EB-MVAE", ".500 ± .013", "300", "200 ± 3.2"]
    assert rows[2] == ["PoE (MVAE)", ".600", "310", "210"]  # in one seed only
    assert tables["Key numbers"][1][-2:] == [".250 ± .050", ".900 ± .001"]
    assert tables["Unconditional agreement"][1] == ["EB-MVAE", ".300 ± .020", ".400", ".250 ± .050"]


def test_without_labels_there_is_no_coherence_and_no_agreement():
    text = results.markdown(table_of(labelled=False), {}, NAMES, "fid", CAPTION)
    assert "oherence" not in text and "agree" not in text
    tables = sections(text)
    assert tables["Key numbers"][1] == ["EB-MVAE", "201", ".900"]
    assert tables["m2, by number observed"][2] == ["PoE (MVAE)", "311", "212"]
    assert tables["Upper bounds"][1] == ["m1", "8.3", "500", "8.3", "500"]


def test_a_name_with_a_bar_stays_in_its_cell():
    table = {
        key: {{"m1": "a|b"}.get(name, name): value for name, value in part.items()}
        for key, part in table_of().items()
    }
    for method in ("eb_mvae", "poe"):
        table[method]["unconditional"]["agreement"] = {"a|b": 0.3, "m2": 0.4}
    text = results.markdown(table, {}, ["a|b", "m2"], "fid", CAPTION)
    assert "| a\\|b | .990 | 8.3 | 500 |" in text
