"""Where things are: storage, dataset, MLflow, Ray cluster. Read from `alexvgg.toml`, never hashed into a run.

[profile.lab]
dashboard = "http://ray-head:8265"
storage = "s3://my-bucket/alexvgg"
dataset = "s3://my-bucket/imagenet"
mlflow = "http://mlflow:5000"
gpus_per_node = 8
gpu = "H100"
"""

import os
import tomllib
from pathlib import Path
from typing import Annotated, Literal

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

from alexvgg.config import from_dict
from alexvgg.errors import InputError

PROJECT_FILE = Path("alexvgg.toml")
LOCAL = "local"


@dataclass(frozen=True, config=ConfigDict(extra="forbid", strict=True))
class Profile:
    """One place to run. With GPUs, a node has one worker for each; without, one worker."""

    dashboard: str
    storage: str
    dataset: str
    mlflow: str | None = None
    geometry: str = "paper"
    gpus_per_node: Annotated[int, Field(ge=0)] = 0
    gpu: Literal["A100", "H100", "H200", "L4", "RTX3090", "V100"] | None = None  # for estimates of how long runs take

    @property
    def workers_per_node(self) -> int:
        return max(1, self.gpus_per_node)


def chosen_profile(name: str | None) -> str:
    """The profile asked for by flag, else by ALEXVGG_PROFILE, else the built-in `local`."""
    return name or os.environ.get("ALEXVGG_PROFILE") or LOCAL


def read_profile(name: str, path: Path = PROJECT_FILE) -> Profile:
    """A profile of the project file. Raises InputError if it isn't there or has unknown or missing keys."""
    if not path.exists():
        raise InputError(
            f"there is no {path} here, so no profile {name!r}; write one, or leave --profile away for local"
        )
    try:
        document = tomllib.loads(path.read_text())
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"{path} is no TOML: {error}") from None
    profiles = document.get("profile", {})
    if name not in profiles:
        raise InputError(f"{path} has no [profile.{name}]; it has {', '.join(profiles) or 'no profile'}")
    return from_dict(Profile, profiles[name])
