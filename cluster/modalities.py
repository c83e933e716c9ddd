"""Write dvc.yaml and params.yaml for another number of modalities: DVC's templates take no lists, so dvc.yaml names each.

    python -m cluster.modalities 3
"""

import argparse
import re
from pathlib import Path

from stages.lib import artifacts, runtime
from stages.lib.runtime import UserError


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("modalities", type=int, help="M, from 2 to 10")
    m = parser.parse_args().modalities
    if not 2 <= m <= 10:
        raise UserError(f"{m} modalities: 2 to 10 are possible")
    try:  # both are rewritten before the first is written
        made = {file: rewrite(Path(file).read_text(), m) for file, rewrite in (("dvc.yaml", stages_for), ("params.yaml", parameters_for))}
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"dvc.yaml and params.yaml should be here: {error}") from None
    for file, text in made.items():
        artifacts.write(file, text.encode(), checksum=False)
    print(f"dvc.yaml and params.yaml: {m} modalities, m1 to m{m}; `make repro` runs them")


def stages_for(text, m):
    """dvc.yaml's text with the matrix m1 .. m<m>, and every list of the VAEs of all modalities as long."""
    names = [f"m{k + 1}" for k in range(m)]
    text, found = re.subn(r"(modality: )\[[^]]*\]", rf"\1[{', '.join(names)}]", text)
    text, lists = re.subn(r"(?m)^( *- models/vae/)m1\n(?:\1m\d+\n)*", lambda line: "".join(f"{line[1]}{name}\n" for name in names), text)
    if found != 1 or lists < 4:
        raise UserError("dvc.yaml is not as this program knows it; `git checkout dvc.yaml` brings it back")
    return text


def parameters_for(text, m):
    """params.yaml's text with polymnist.modalities set, comments and all else as they are."""
    text, found = re.subn(r"(?m)^(  modalities: )\d+", rf"\g<1>{m}", text)
    if found != 1:
        raise UserError("params.yaml has no polymnist.modalities; `git checkout params.yaml` brings it back")
    return text


if __name__ == "__main__":
    runtime.run(main)
