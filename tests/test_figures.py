"""What figures hold of images of several shapes, and of data without labels: read off the pictures and axes themselves."""

import matplotlib.pyplot as plt
import numpy as np
import pytest

from stages.lib import figures

METHODS, REFERENCES = ("eb_mvae", "poe"), ("unimodal_vae", "real")


def image(*shape, seed=0):
    return np.random.default_rng(seed).integers(0, 255, shape, dtype=np.uint8)  # never white


# ---- images of several shapes


def test_images_of_one_shape_stay_as_they_are():
    images = [image(4, 3, 5, 6, seed=m) for m in range(3)]
    np.testing.assert_array_equal(figures.alike(images), np.stack(images, 1))


def test_smaller_images_are_set_in_white_and_grey_ones_become_colour():
    """The height of one and the width of another; an odd rest is below and to the right."""
    images = [image(2, 1, 4, 8, seed=1), image(2, 3, 7, 5, seed=2), image(2, 3, 2, 2, seed=3)]
    found = figures.alike(images)
    assert found.shape == (2, 3, 3, 7, 8) and found.dtype == np.uint8
    places = [(1, 0), (0, 1), (2, 3)]  # top, left
    expected = np.full_like(found, 255)
    for m, (x, (top, left)) in enumerate(zip(images, places)):
        for channel in range(3):
            expected[:, m, channel, top : top + x.shape[2], left : left + x.shape[3]] = x[:, min(channel, x.shape[1] - 1)]
    np.testing.assert_array_equal(found, expected)


def test_grey_images_alone_stay_grey_and_are_drawn_as_colour():
    images = [image(2, 1, 4, 6, seed=1), image(2, 1, 6, 4, seed=2)]
    found = figures.alike(images)
    assert found.shape == (2, 2, 1, 6, 6)
    picture = figures.tile(found)
    assert picture.shape == (2 * 6 + 2, 2 * 6 + 2, 3)
    np.testing.assert_array_equal(picture[1:5, :6], np.repeat(images[0][0].transpose(1, 2, 0), 3, 2))
    np.testing.assert_array_equal(picture[8:14, 9:13], np.repeat(images[1][1].transpose(1, 2, 0), 3, 2))


# ---- curves


def table_of(modalities, labelled):
    """As in table.json; every number another."""
    numbers = iter(np.linspace(0.1, 0.9, 1000))
    cell = lambda k: {"distance": 100 * next(numbers), "diversity": 1.0, **({"coherence": next(numbers)} if labelled and k else {})}
    names = [f"m{k + 1}" for k in range(modalities)]
    made = {method: {name: {f"given{k}": cell(k) for k in range(modalities)} for name in names} for method in METHODS}
    for method in METHODS:
        made[method]["unconditional"] = {}
    return {**made, **{reference: {name: cell(1) for name in names} for reference in REFERENCES}}


def drawn(table, targets, spread=None):
    figures.LABEL["distance"] = "the distance"
    figure = figures.curves(table, spread or {}, METHODS, "distance", targets, REFERENCES)
    plt.close(figure)
    del figures.LABEL["distance"]
    return figure


@pytest.mark.parametrize("labelled", [True, False])
@pytest.mark.parametrize("modalities, targets", [(2, ("m2", "m1")), (3, ("m3", "m2")), (3, ("m1", "m2", "m3")), (5, ("m5", "m3")), (4, ("m1",))])
def test_curves_are_the_numbers_of_the_table(modalities, targets, labelled):
    """A row a target; coherence and distance, or distance alone."""
    table, metrics = table_of(modalities, labelled), ["coherence", "distance"][not labelled :]
    figure = drawn(table, targets)
    assert len(figure.axes) == len(targets) * len(metrics)
    for i, axis in enumerate(figure.axes):
        target, metric = targets[i // len(metrics)], metrics[i % len(metrics)]
        assert axis.get_ylabel() == {"coherence": "coherence", "distance": "the distance"}[metric]
        assert axis.get_title() == f"{target} given others"
        lines = {line.get_label(): line for line in axis.lines}
        assert list(lines) == [figures.LABEL[key] for key in (*METHODS, *REFERENCES)]
        for method in METHODS:
            x, y = lines[figures.LABEL[method]].get_data()
            assert list(x) == list(range(1, modalities))
            assert list(y) == [table[method][target][f"given{k}"][metric] for k in range(1, modalities)]
        for reference in REFERENCES:
            assert set(lines[figures.LABEL[reference]].get_ydata()) == {table[reference][target][metric]}
        assert list(axis.get_xticks()) == list(range(1, modalities))
        assert (axis.get_ylim() == (0, 1.02)) == (metric == "coherence") and axis.get_ylim()[0] == 0
    words = [text.get_text() for axis in figure.axes for text in (axis.title, axis.yaxis.label)]
    assert ("coherence" in words) == labelled


@pytest.mark.parametrize("labelled", [True, False])
def test_deviations_over_seeds_are_bands(labelled):
    table = table_of(3, labelled)
    spread = {"poe": table["poe"]}
    figure = drawn(table, ("m3",), spread)
    metrics = ["coherence", "distance"][not labelled :]
    for axis, metric in zip(figure.axes, metrics, strict=True):
        assert len(axis.collections) == 1
        y = axis.collections[0].get_paths()[0].vertices[:, 1]
        values = [table["poe"]["m3"][f"given{k}"][metric] for k in (1, 2)]
        assert min(y) == 0 and max(y) == pytest.approx(2 * max(values))  # the value less and plus itself
