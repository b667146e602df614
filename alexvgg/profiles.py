"""Where things are: storage, dataset, MLflow, Ray cluster. Never hashed into a run.

Each setting of a profile is taken from the first place that has it: a flag, the environment (ALEXVGG_STORAGE, …),
`alexvgg.toml` in this folder, the user's own `config.toml`, the built-in `local` profile, its default.

    [profile.lab]
    dashboard = "http://ray-head:8265"
    storage = "s3://my-bucket/alexvgg"
    dataset = "s3://my-bucket/imagenet"
"""

import difflib
import json
import os
import re
import tomllib
from collections.abc import Mapping
from dataclasses import MISSING, fields
from dataclasses import dataclass as plain_dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, get_type_hints
from urllib.parse import urlsplit

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

from alexvgg.config import from_dict
from alexvgg.errors import InputError, did_you_mean

PROJECT_FILE = Path("alexvgg.toml")
LOCAL = "local"
PREFIX = "ALEXVGG_"  # of environment variables
TYPO = 0.9  # how alike two variables are if one of them is a mistake; others are someone else's

LOGIN = re.compile(r"^((?:[^/?#]*://)?)[^/?#]*@")
# How each service's secret is given instead.
_AWS = "S3's keys come from the usual AWS environment, here and on the nodes"
SECRETS = {
    "dashboard": "Ray's token comes from RAY_AUTH_TOKEN or the file that RAY_AUTH_TOKEN_PATH names",
    "storage": _AWS, "dataset": _AWS,
    "mlflow": "MLflow's are MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, here and on the nodes",
}  # fmt: skip


@dataclass(frozen=True, config=ConfigDict(extra="forbid", strict=True))
class Profile:
    """One place to run. With GPUs, a node has one worker for each; without, one worker."""

    storage: Annotated[str, Field(description="Where runs and their results lie: s3://bucket/prefix or file:///folder")]
    dataset: Annotated[
        str | None, Field(description="The packed dataset: s3://bucket/prefix or file:///folder; `status` needs none")
    ] = None
    dashboard: Annotated[
        str | None,
        Field(description="Ray's dashboard, which has its Jobs API: http://ray-head:8265; what only reads needs none"),
    ] = None
    mlflow: Annotated[str | None, Field(description="An MLflow server; without one, nothing is logged to MLflow")] = (
        None
    )
    geometry: Annotated[
        str, Field(description="Of all nets: `paper` (crop 224, full width) or `small` (crop 32, width 1/8)")
    ] = "paper"
    gpus_per_node: Annotated[
        int, Field(ge=0, description="GPUs of each node, one worker for each; 0: one worker on the node's CPUs")
    ] = 0
    max_nodes: Annotated[
        int | None,
        Field(ge=1, description="Nodes that train, if the cluster adds them by itself for what waits: at most so many"),
    ] = None
    gpu: Annotated[
        Literal["A100", "A100-80GB", "A10G", "H100", "H200", "L4", "L40S", "RTX3090", "T4"] | None,
        Field(description="Of which kind they are: for estimates of durations before the first run has measured any"),
    ] = None

    def __post_init__(self) -> None:
        for name in SECRETS:
            check_no_login(name, getattr(self, name))
        for name in ("dashboard", "mlflow"):
            if (url := getattr(self, name)) is not None:
                check_url(f"the profile's {name}", url)

    @property
    def workers_per_node(self) -> int:
        return max(1, self.gpus_per_node)


def check_no_login(name: str, url: str | None) -> None:
    """Raise InputError, which doesn't repeat it, if a URL holds a user name, which may be a token, or a password."""
    if url is not None and LOGIN.match(url):
        raise InputError(
            f"the URL of {name} holds a user name or a password, which would be stored with every run and printed. "
            f"Take it out; {SECRETS[name]}."
        )


def without_login(url: str) -> str:
    """The URL as it may be shown."""
    return LOGIN.sub(lambda found: f"{found[1]}***@", url)


def check_url(what: str, url: str) -> None:
    """Raise InputError if it is no http URL; `what` says whose it is."""
    try:
        parts = urlsplit(url)
        sane = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # of a port that is no number
        sane = False
    if not sane:
        raise InputError(f"{what} is {url!r}; write it as http://HOST:PORT")


SETTINGS = tuple(field.name for field in fields(Profile))


@plain_dataclass(frozen=True)
class Source:
    """Settings of one profile that come from one place."""

    origin: str  # as a person knows it: `--storage`, `ALEXVGG_STORAGE`, `alexvgg.toml`
    values: Mapping[str, Any]


@plain_dataclass(frozen=True)
class Setting:
    """A value and where it came from."""

    value: Any
    origin: str


def user_file() -> Path:
    """The user's own file, for all projects."""
    return Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "alexvgg" / "config.toml"


def chosen(name: str | None) -> Setting:
    """The profile asked for by flag, else by ALEXVGG_PROFILE, else by a file's `default`, else the built-in `local`."""
    if name:
        return Setting(name, "--profile")
    if named := os.environ.get("ALEXVGG_PROFILE"):
        return Setting(named, "ALEXVGG_PROFILE")
    for path in (PROJECT_FILE, user_file()):
        if default := read_file(path).get("default"):
            return Setting(default, str(path))
    return Setting(LOCAL, "built in")


def chosen_profile(name: str | None) -> str:
    """The name of `chosen`."""
    return str(chosen(name).value)


def to_profile(settings: Mapping[str, Setting]) -> Profile:
    """Raises InputError with one sentence per wrong or missing setting."""
    return from_dict(Profile, {key: setting.value for key, setting in settings.items()})


def settings_of(
    name: str, changes: Mapping[str, str | None] | None = None, built_in: Source | None = None
) -> dict[str, Setting]:
    """Every setting that any place gives, by the first place that does; `built_in` is the local cluster's.

    `changes` are flags by their settings' names. Raises InputError for an unknown profile, setting or wrong file.
    """
    files = [Source(str(p), _known(p, name)) for p in (PROJECT_FILE, user_file()) if name in _profiles(p)]
    if not files and built_in is None:
        raise InputError(_no_such(name))
    flags = [Source(f"--{key}", {key: value}) for key, value in (changes or {}).items() if value is not None]
    last = [built_in] if built_in is not None else []
    default = Source("default", {f.name: f.default for f in fields(Profile) if f.default is not MISSING})
    found: dict[str, Setting] = {}
    for key in SETTINGS:
        for source in (*flags, *_environment(), *files, *last, default):
            if key in source.values:
                found[key] = Setting(source.values[key], source.origin)
                break
    return found


def read_file(path: Path) -> dict[str, Any]:
    """A file's document; empty if there is none. Raises InputError if it is no TOML, or isn't made of profiles."""
    if not path.exists():
        return {}
    try:
        document = tomllib.loads(path.read_text())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is no TOML: {error}") from None
    for key in document:
        if key not in ("default", "profile"):
            raise InputError(f"{path}: there is no setting {key!r}{did_you_mean(key, ('default', 'profile'))}")
    profiles = document.get("profile", {})
    if not isinstance(profiles, dict) or not all(isinstance(values, dict) for values in profiles.values()):
        raise InputError(f"{path}: profiles are tables; write [profile.NAME] and its settings below")
    return document


def _profiles(path: Path) -> dict[str, dict[str, Any]]:
    return dict(read_file(path).get("profile", {}))


def _known(path: Path, name: str) -> dict[str, Any]:
    """The settings of a file's profile. Raises InputError if one is unknown; of other profiles that says nothing."""
    values = _profiles(path)[name]
    for key in values:
        if key not in SETTINGS:
            raise InputError(f"{path}: {key} is not a setting of [profile.{name}]{did_you_mean(key, SETTINGS)}")
    return values


def _no_such(name: str) -> str:
    known = {n for path in (PROJECT_FILE, user_file()) for n in _profiles(path)}
    if not PROJECT_FILE.exists() and not known:
        return f"there is no {PROJECT_FILE} here, so no profile {name!r}; write one, or leave --profile away for local"
    return f"{PROJECT_FILE} has no [profile.{name}]{did_you_mean(name, known, 'it has')}"


def _environment() -> list[Source]:
    """ALEXVGG_STORAGE and its like. Values that aren't text are JSON. Raises InputError for one that is misspelt."""
    hints, sources = get_type_hints(Profile), []
    known = [PREFIX + key.upper() for key in (*SETTINGS, "profile")]
    for variable in (v for v in os.environ if v.startswith(PREFIX) and v not in known):
        if meant := difflib.get_close_matches(variable, known, n=1, cutoff=TYPO):
            raise InputError(f"{variable} is set, which nothing reads; did you mean {meant[0]}?")
    for key in SETTINGS:
        variable = PREFIX + key.upper()
        text = os.environ.get(variable)
        if text:
            number = hints[key] in (int, int | None)
            sources.append(Source(variable, {key: _parsed(variable, text) if number else text}))
    return sources


def _parsed(variable: str, text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        raise InputError(f"{variable}={text!r} is no number") from None
