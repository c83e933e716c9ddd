"""Typed parameters: a mistake in params.yaml is one line that names the key and the file."""

import re
from pathlib import Path
from typing import Annotated, Literal

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    create_model,
)
from pydantic_core import PydanticCustomError

from ebmvae.core.messages import UserError
from ebmvae.methods import BASELINES


def _number(value):
    # `dvc exp run -S x=1e-5` writes 1e-05, which YAML 1.1 reads as a string.
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            return value
    return value


def _none_if_blank(value):
    # `dvc exp run -S x=` writes '' where params.yaml has nothing.
    return None if isinstance(value, str) and not value.strip() else value


def _not_blank(value):
    if not value.strip():
        raise PydanticCustomError("blank", "is empty, but should have a value")
    return value


Text = Annotated[str, AfterValidator(_not_blank)]
OptionalText = Annotated[str | None, BeforeValidator(_none_if_blank)]
Float = Annotated[float, BeforeValidator(_number), Field(allow_inf_nan=False)]
Positive = Annotated[Float, Field(gt=0)]
NonNegative = Annotated[Float, Field(ge=0)]
Count = Annotated[int, Field(ge=1)]


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, protected_namespaces=())


class PolyMNIST(Section):
    digits: Literal["auto", "mnist", "embedded"]
    backgrounds: Text
    import_dir: OptionalText
    own_data: OptionalText
    modalities: Annotated[int, Field(ge=2, le=10)]
    n_train: Annotated[int, Field(ge=100, le=60000)]
    n_test: Annotated[int, Field(ge=100, le=10000)]
    seed: Annotated[int, Field(ge=0)]


class Classifier(Section):
    epochs: Count
    batch_size: Count
    learning_rate: Positive
    min_accuracy: Annotated[Float, Field(ge=0, le=1)]
    feature_epochs: Count
    feature_dim: Count
    seed: Annotated[int, Field(ge=0)]


class VAE(Section):
    latent_dim: Count
    likelihood: Literal["gaussian", "laplace", "correlated"]
    scale: Positive
    beta: NonNegative
    warmup: Annotated[Float, Field(ge=0, le=1)]
    epochs: Count
    batch_size: Count
    learning_rate: Positive
    lr_schedule: Literal["constant", "cosine"]


class Fit(Section):
    objective: Literal["exact", "sliced", "denoising"]
    model: Literal["energy", "score"]
    posterior_scale: Positive
    hidden: Count
    layers: Count
    steps: Count
    batch_size: Count
    learning_rate: Positive


class EBM(Section):
    fit: Fit
    langevin_steps: Count
    step_size: Positive
    noise_scale: NonNegative


class AnnealedFit(Section):
    hidden: Count
    latent_classes: Annotated[int, Field(ge=2)]
    infonce_steps: Count
    steps: Count
    batch_size: Annotated[int, Field(ge=2)]
    learning_rate: Positive
    weight_decay: NonNegative


class Annealed(Section):
    fit: AnnealedFit
    steps: Annotated[int, Field(ge=2)]
    guidance_scale: NonNegative
    guidance_below: Annotated[Float, Field(ge=0, le=1)]
    class_guidance: NonNegative


Betas = create_model("Betas", __base__=Section, **{m: (NonNegative, ...) for m in BASELINES})


class Baseline(Section):
    latent_dim: Count
    beta: Betas


class Evaluate(Section):
    tuples: Literal["test", "validation"]
    n_samples: Annotated[int, Field(ge=100)]
    batch_size: Count
    max_subsets: Count


class FID(Section):
    inception_weights: Text
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


class Params(Section):
    profile: Text
    seed: Annotated[int, Field(ge=0)]
    threads: Count
    matmul_precision: Literal["ieee", "bf16"]
    polymnist: PolyMNIST
    classifier: Classifier
    vae: VAE
    ebm: EBM
    annealed: Annealed
    baseline: Baseline
    evaluate: Evaluate
    fid: FID


def load(path: str | Path = "params.yaml") -> Params:
    """Read and check `path`. Raises `UserError` with the first mistake in one line."""
    try:
        text = Path(path).read_text()
        refuse_conflict(path, text)
        content = yaml.safe_load(text)
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: can't be read ({error})") from None
    # PyYAML lets the latter two through from odd scalars.
    except (yaml.YAMLError, ValueError, IndexError) as error:
        raise UserError(f"{path}: not YAML: {' '.join(str(error).split())}") from None
    return check(content, path)


def check(content, path: str | Path = "params.yaml") -> Params:
    """A nested dict as `Params`; raises `UserError` naming key, value and what is allowed."""
    try:
        return Params.model_validate(content)
    except ValidationError as error:
        first, *more = error.errors()
        key = ".".join(map(str, first["loc"])) or "(the whole file)"
        if first["type"] == "extra_forbidden":
            known = _known_keys(first["loc"][:-1])
            line = f"unknown key {key}; known here: {', '.join(known)}"
        elif first["type"] == "missing":
            line = f"{key} is missing"
        else:
            message = first["msg"].removeprefix("Input ")
            line = f"{key} = {first['input']!r} {message}"
        others = f" (and {len(more)} more)" if more else ""
        raise UserError(f"{path}: {line}{others}") from None


def refuse_conflict(path: str | Path, text: str, remedy: str = ""):
    """Raise `UserError` with the remedy where a merge left its marks in `text`, that of a file.

    remedy: in place of editing the file, where it is not written by hand.
    """
    mark = re.search(r"^(<{7}|\|{7}|={7}|>{7})(?=\s|$)", text, re.MULTILINE)
    if mark:
        remedy = remedy or f"keep what you want of both sides, then `git add {path}`"
        line = text.count("\n", 0, mark.start()) + 1
        raise UserError(f"{path}: line {line} is in a merge conflict ({mark[0]}); {remedy}")


def _known_keys(location):
    model = Params
    for key in location:
        model = model.model_fields[key].annotation
    return list(model.model_fields)
