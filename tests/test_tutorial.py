"""docs/tutorial.md, block by block, in the finished smoke run; and what `stages.sample` refuses."""

import re
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.project import shell

PAGE = Path(__file__).parent.parent / "docs" / "tutorial.md"


def blocks():
    """[(language, code)] in the page's order."""
    return re.findall(r"```(\w+)\n(.*?)```", PAGE.read_text(), re.S)


def test_every_block_runs(finished):
    """Python blocks share their names, as in one session; bash blocks come at their place between them."""
    script = ["import subprocess"]
    for language, code in blocks():
        script.append(code if language == "python" else f"subprocess.run(['bash', '-ec', {code!r}], check=True)")
    assert {language for language, _ in blocks()} == {"python", "bash"}
    (finished / "tutorial_run.py").write_text("\n".join(script))
    done = shell(finished, sys.executable, "tutorial_run.py", PYTHONPATH=str(finished))
    assert "'m3': (16, 3, 28, 28)" in done.stdout and "41 states; m1 stands still: True" in done.stdout
    assert 0 <= float(re.search(r"higher energy in ([0-9.]+)", done.stdout)[1]) <= 1
    for name, count in (("out", 4), ("paper", 4), ("unconditional", 3)):
        with Image.open(finished / f"{name}.png") as image:
            assert image.size == (count * 30 - 2, count * 30 - 2)
            assert len(np.unique(np.asarray(image))) > 50
    for file in ("out.png", "paper.png", "unconditional.png", "m1.png", "m4.png", "tutorial_run.py"):
        (finished / file).unlink()
    assert "up to date" in shell(finished, "dvc", "status").stdout


def test_what_is_observed_comes_back_and_seeds_differ(finished):
    code = """
import torch
from stages import sample
from stages.lib import data, params
test, p = data.load_split("test"), params.load()
fitted, vaes = sample.load("eb_mvae_annealed", p, torch.device("cpu"))
of = lambda **given: sample.generate(fitted, vaes, {"m2": test.images["m2"][3]}, **given)
a, again, more, other = of(n=3), of(n=3), of(n=5), of(n=3, seed=1)
assert all(torch.equal(a[k], again[k]) for k in a)
assert all((a[k].int() - more[k][:3].int()).abs().max() <= 1 for k in a)  # one generator a sample
assert not torch.equal(a["m1"], other["m1"])
with torch.no_grad():  # what is observed comes back as its reconstruction, but for the posterior's noise
    encode, decode = vaes["m2"]
    recon = data.to_uint8(decode(encode(data.to_float(test.images["m2"][3:4]))[0]))
error = lambda x: float((x["m2"].float() - recon).square().mean())
assert error(a) < 0.7 * error(sample.generate(fitted, vaes, {}, n=3))
"""
    shell(finished, sys.executable, "-c", code)


@pytest.mark.parametrize("arguments, says", [
    (["--target", "m9"], "--target m9: no such modality; there are m1, m2, m3, m4, m5"),
    (["--target", "m1", "--observed", "m1=a.png"], "--observed m1=a.png: NAME=FILE is wanted"),
    (["--target", "m1", "--observed", "m2"], "--observed m2: NAME=FILE is wanted"),
    (["--target", "m1", "--observed", "m2=nowhere.png"], "--observed m2=nowhere.png can't be read as a picture"),
    (["--target", "m1", "--observed", "m2=README.md"], "--observed m2=README.md can't be read as a picture"),
    (["--target", "m1", "--observed", "m2=reports/figures/figure1.png"], "but this modality is 28x28; crop or resize it"),
    (["--target", "m1", "-n", "0"], "-n 0: at least 1 picture"),
])
def test_bad_requests_get_one_line(finished, arguments, says):
    done = shell(finished, "python", "-m", "stages.sample", *arguments, "-o", "never.png", check=False)
    assert done.returncode == 2 and done.stderr.startswith("error: ") and done.stderr.count("\n") == 1
    assert says in done.stderr and not (finished / "never.png").exists()
