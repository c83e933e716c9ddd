"""What figures hold, read off the pictures and axes themselves."""

import os
import subprocess
import sys
from pathlib import Path

import matplotlib
import numpy as np
import pytest

from ebmvae.methods import METHODS, REFERENCES
from ebmvae.reporting import figures

ROOT = Path(__file__).parents[2]


def image(*shape, seed=0):
    return np.random.default_rng(seed).integers(0, 255, shape, dtype=np.uint8)  # never white


# ---- whatever the user's matplotlibrc

THEIRS = [
    {"text.usetex": True, "font.size": 20, "axes.grid": True, "lines.linewidth": 5},
    {
        "font.family": "monospace",
        "savefig.bbox": "tight",
        "pdf.fonttype": 42,
        "axes.facecolor": "0",
    },
    {"figure.constrained_layout.use": True, "savefig.transparent": True, "image.cmap": "gray"},
    {"axes.prop_cycle": "cycler(color='rgb')", "legend.framealpha": 0, "path.sketch": (1, 100, 2)},
]


def settings_now():
    """All but the backend: a look at it loads one."""
    return {key: matplotlib.rcParams[key] for key in matplotlib.rcParams if key != "backend"}


def drawn(folder):
    """The bytes of each kind of figure, as the report draws and saves it."""
    table, picture = table_of(3, True), figures.tile(image(2, 2, 3, 9, 9))
    made = {
        "panels": figures.panels([picture, picture], ["a", "b"], ["m1", "m2"]),
        "curves": figures.curves(table, {"poe": table["poe"]}, "fid", ("m1",)),
        "training": figures.training_curves({name: {"m1": [(1, 2.0), (2, 1.0)]} for name in "ab"}),
    }
    for name, figure in made.items():
        figures.save(figure, folder / name, "seed 0_1 & 50 %")  # no TeX
    return {file.name: file.read_bytes() for file in sorted(folder.iterdir())}


@pytest.fixture(scope="module")
def by_default(tmp_path_factory):
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        return drawn(tmp_path_factory.mktemp("default"))


@pytest.mark.parametrize("settings", THEIRS)
def test_a_users_settings_change_no_byte_and_stay(tmp_path, by_default, settings):
    with matplotlib.rc_context(settings):
        before = settings_now()
        assert drawn(tmp_path) == by_default and len(by_default) == 6
        assert settings_now() == before


def test_files_of_the_user_change_no_byte(tmp_path, by_default):
    """A matplotlibrc, and a style that can't be read."""
    rc, out = tmp_path / "matplotlibrc", tmp_path / "out"
    (tmp_path / "stylelib").mkdir()
    (tmp_path / "stylelib/own.mplstyle").write_bytes(b"font.size: 3 # \xff\n")
    rc.write_text("text.usetex: True\nfont.size: 17\nfigure.facecolor: red\n")
    out.mkdir()
    code = "import sys; from pathlib import Path; sys.path[:0] = sys.argv[1:3]; import test_figures"
    code += "; test_figures.drawn(Path(sys.argv[3]))"
    words = [sys.executable, "-c", code, str(ROOT), str(Path(__file__).parent), str(out)]
    env = {**os.environ, "MATPLOTLIBRC": str(rc), "MPLCONFIGDIR": str(tmp_path)}
    subprocess.run(words, check=True, env=env)
    assert {file.name: file.read_bytes() for file in sorted(out.iterdir())} == by_default


# ---- images of several shapes


def test_smaller_images_are_set_in_white_and_grey_ones_become_colour():
    """The height of one and the width of another; an odd rest is below and to the right."""
    images = [image(2, 1, 4, 8, seed=1), image(2, 3, 7, 5, seed=2), image(2, 3, 2, 2, seed=3)]
    expected = np.full((2, 3, 3, 7, 8), 255, np.uint8)
    places = [(1, 0), (0, 1), (2, 3)]  # top, left
    for m, (x, (top, left)) in enumerate(zip(images, places, strict=True)):
        bottom, right = top + x.shape[2], left + x.shape[3]
        expected[:, m, :, top:bottom, left:right] = x  # one channel becomes three alike
    np.testing.assert_array_equal(figures.side_by_side(images), expected)


def test_tiles_are_drawn_in_colour_with_gaps():
    images = image(2, 3, 1, 4, 6)
    expected = np.full((4 + 2 + 4, 6 + 2 + 6 + 2 + 6, 3), 255)
    for row, column in np.ndindex(2, 3):
        tile = np.moveaxis(images[row, column], 0, 2)  # grey: all three channels alike
        expected[6 * row : 6 * row + 4, 8 * column : 8 * column + 6] = tile
    np.testing.assert_array_equal(figures.tile(images), expected)


# ---- curves


def table_of(modalities, labelled):
    """As in table.json; no number stands twice."""
    numbers = iter(np.linspace(0.1, 0.9, 1000))

    def cell(k):
        coherence = {"coherence": next(numbers)} if labelled and k else {}
        return {"fid": 100 * next(numbers), **coherence}

    names = [f"m{k + 1}" for k in range(modalities)]
    cells = {
        m: {n: {f"given{k}": cell(k) for k in range(modalities)} for n in names} for m in METHODS
    }
    return {**cells, **{reference: {n: cell(1) for n in names} for reference in REFERENCES}}


@pytest.mark.parametrize("labelled", [True, False])
@pytest.mark.parametrize("modalities, targets", [(2, ("m2", "m1")), (5, ("m5", "m3", "m4"))])
def test_curves_are_the_numbers_of_the_table(modalities, targets, labelled):
    """A row per target; coherence and distance, or distance alone."""
    table = table_of(modalities, labelled)
    metrics = ["coherence", "fid"] if labelled else ["fid"]
    axes = figures.curves(table, {"poe": table["poe"]}, "fid", targets).axes
    steps = [f"given{k}" for k in range(1, modalities)]
    for axis, (target, metric) in zip(
        axes, [(t, m) for t in targets for m in metrics], strict=True
    ):
        assert axis.get_ylabel() == figures.METRIC_LABELS[metric]
        assert axis.get_title() == f"{target} given others"
        lines = {line.get_label(): line for line in axis.lines}
        assert list(lines) == [entry.label for entry in figures.SHOWN.values()]
        for key, entry in figures.SHOWN.items():
            line, part = lines[entry.label], table[key][target]
            assert line.get_color() == entry.colour
            if key in REFERENCES:
                assert set(line.get_ydata()) == {part[metric]}
            else:
                assert list(line.get_xdata()) == list(range(1, modalities))
                assert list(line.get_ydata()) == [part[step][metric] for step in steps]
        (band,) = axis.collections  # of PoE alone: the value less and plus itself
        y = band.get_paths()[0].vertices[:, 1]
        largest = max(table["poe"][target][step][metric] for step in steps)
        assert (min(y), max(y)) == (0, pytest.approx(2 * largest))
        assert axis.get_ylim()[0] == 0 and (axis.get_ylim()[1] == 1.02) == (metric == "coherence")
