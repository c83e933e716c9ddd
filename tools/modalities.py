"""Write dvc.yaml and params.yaml for another number of modalities.

    python -m tools.modalities 3

DVC's templates take no lists, so dvc.yaml names every modality.
"""

import re
from pathlib import Path

import yaml

from ebmvae import command, params
from ebmvae.core import artifacts
from ebmvae.core.messages import UserError

VAES = "models/vae/"  # with the modality's name: a folder that other stages depend on


def main():
    parser = command.parser(__doc__)
    parser.add_argument("modalities", type=int, help="M, from 2 to 10")
    m = parser.parse_args().modalities
    if not 2 <= m <= 10:
        raise UserError(f"{m} modalities: 2 to 10 are possible")
    rewriters = {"dvc.yaml": stages_for, "params.yaml": parameters_for}
    try:
        before = {file: Path(file).read_text() for file in rewriters}
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"dvc.yaml and params.yaml should be here: {error}") from None
    for file, text in before.items():
        params.refuse_conflict(file, text)
    texts = {file: rewrite(before[file], m) for file, rewrite in rewriters.items()}
    with artifacts.together():
        for file, text in texts.items():
            artifacts.write(file, text.encode(), checksum=False)
    print(f"dvc.yaml and params.yaml: {m} modalities, m1 to m{m}; `make repro` runs them")


def stages_for(text, m):
    """The text of dvc.yaml with modalities m1 .. m<m>: in the matrix and in every list of VAEs.

    Comments and all else stay. Raises `UserError` where a list is not as this function knows it.
    """
    names = [f"m{k + 1}" for k in range(m)]
    text = re.sub(r"(modality: )\[[^]]*\]", rf"\1[{', '.join(names)}]", text)
    block = rf"(?m)^( *- {VAES})m1\n(?:\1m\d+\n)*"
    text = re.sub(block, lambda lines: "".join(f"{lines[1]}{name}\n" for name in names), text)
    try:
        lists = modalities_in(yaml.safe_load(text))
    except yaml.YAMLError:
        lists = []
    if names not in lists or any(named != names for named in lists):
        raise UserError(
            "dvc.yaml does not list modalities as this program knows it; "
            "`git checkout dvc.yaml` brings it back"
        )
    return text


def modalities_in(content):
    """The modalities that each list in the parsed dvc.yaml names, by themselves or as VAEs."""
    if isinstance(content, dict):
        return [named for value in content.values() for named in modalities_in(value)]
    if not isinstance(content, list):
        return []
    matches = [re.fullmatch(rf"(?:{VAES})?(m\d+)", str(item)) for item in content]
    named = [match[1] for match in matches if match]
    return ([named] if named else []) + [n for item in content for n in modalities_in(item)]


def parameters_for(text, m):
    """The text of params.yaml with polymnist.modalities set, comments and all else as they are."""
    text, n_lines = re.subn(r"(?m)^(  modalities: )\d+", rf"\g<1>{m}", text)
    if n_lines != 1:
        raise UserError(
            "params.yaml has no polymnist.modalities; `git checkout params.yaml` brings it back"
        )
    return text


if __name__ == "__main__":
    command.run(main)
