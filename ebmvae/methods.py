"""The one list of methods. A new method is a new entry.

Scripts, figures, claims, tables, benchmarks and tests read it.

No output of a training or an evaluation follows from this file; `report` shows its labels and
colours.
"""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Method:
    """What the rest of the project has to know of a method."""

    label: str
    colour: str
    kind: Literal["energy", "baseline"]  # a joint energy over unimodal latents, or one joint latent
    models: str  # folder of its fitted networks
    params: str  # the part of params.yaml that only its own stages read
    module: str  # where its conditional sampler is, and a baseline's loss
    code: tuple[str, ...]  # what its own stages follow from, beside what all stages share


@dataclass(frozen=True)
class Reference:
    """An upper bound that methods are measured against."""

    label: str
    colour: str


def _baseline(method: str, label: str, colour: str) -> Method:
    """A joint-posterior VAE: everything but its label and colour follows from its id."""
    return Method(
        label,
        colour,
        kind="baseline",
        models=f"models/baseline/{method}",
        params=f"baseline.beta.{method}",
        module=f"ebmvae.baselines.{method}",
        code=("stages/train_baseline.py", f"ebmvae/baselines/{method}.py"),
    )


METHODS: dict[str, Method] = {
    "eb_mvae": Method(
        "EB-MVAE",
        "#d62728",
        kind="energy",
        models="models/ebm",
        params="ebm",
        module="ebmvae.ebm.langevin",
        code=("stages/fit_ebm.py", "ebmvae/ebm"),
    ),
    "eb_mvae_annealed": Method(
        "EB-MVAE annealed (ours)",
        "#8c1a11",
        kind="energy",
        models="models/annealed",
        params="annealed",
        module="ebmvae.annealed.sampler",
        code=("stages/fit_annealed.py", "ebmvae/annealed"),
    ),
    "poe": _baseline("poe", "PoE (MVAE)", "#1f77b4"),
    "moe": _baseline("moe", "MoE (MMVAE)", "#2ca02c"),
    "mopoe": _baseline("mopoe", "MoPoE", "#9467bd"),
    "mvtcae": _baseline("mvtcae", "MVTCAE", "#ff7f0e"),
}
ENERGIES: tuple[str, ...] = tuple(key for key, m in METHODS.items() if m.kind == "energy")
BASELINES: tuple[str, ...] = tuple(key for key, m in METHODS.items() if m.kind == "baseline")
REFERENCES: dict[str, Reference] = {
    "unimodal_vae": Reference("unimodal VAE", "#555555"),
    "real": Reference("real images", "#aaaaaa"),
}
