"""What a run is (`RunSpec`, hashed into its name) and how it is carried out (`Execution`, never part of its identity).

All classes are frozen, validated when built, and refuse unknown keys when read from JSON or TOML.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, fields, is_dataclass
from typing import Annotated, Any, Literal, TypeVar

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from alexvgg.errors import InputError, did_you_mean

LARGEST_SCALE = 4096  # of S and Q
STEPS_PER_POINT = 10  # of training: their losses are summed over ranks, looked at and logged together
PAPER_CROP = 224  # S and Q are the VGG paper's numbers for this crop
PAPER_DATASET = "imagenet"  # ILSVRC-2012, by the name that packing it gives

Scale = int | tuple[int, int]  # S: the shorter side, fixed or drawn per image from [min; max] (VGG section 3.1)

Positive = Annotated[int, Field(gt=0)]

_strict = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


def pixels(scale: int, crop: int) -> int:
    """The shorter side in pixels for the paper's S or Q at another crop than 224: the same view, fewer pixels."""
    return round(scale * crop / PAPER_CROP)


def check_test_scales(scales: Iterable[int]) -> None:
    """Raise InputError for a Q that no crop fits into, or whose images would fill the memory."""
    for q in scales:
        _check_scale("Q", q, "224 to 512")


def _check_scale(name: str, scale: int, papers: str) -> None:
    if scale > LARGEST_SCALE:
        raise InputError(f"{name}={scale} is over {LARGEST_SCALE}; the paper uses {papers}")
    if scale < PAPER_CROP:
        raise InputError(
            f"{name}={scale} is smaller than the {PAPER_CROP}-pixel crop that scales are given for: no crop fits. "
            f"Use {PAPER_CROP} or more (the paper uses {papers})."
        )


@dataclass(frozen=True, config=_strict)
class ModelConfig:
    """A net of the papers, at a size."""

    name: str
    num_classes: Positive
    width: Annotated[float, Field(gt=0, le=8, description="Times the channels of every hidden layer")] = 1.0
    crop: Annotated[int, Field(gt=0, description="Side of the input in pixels")] = PAPER_CROP


@dataclass(frozen=True, config=_strict)
class DataConfig:
    """`dataset` and `fingerprint` say which images, not where they lie."""

    dataset: str
    fingerprint: str
    train_scale: Annotated[Scale, Field(description="S, the shorter side of training images for a crop of 224")]
    colour_std: Annotated[
        float, Field(ge=0, description="Of alpha in the PCA colour shift (AlexNet 4.1); 0: no shift")
    ] = 0.1
    window: Annotated[int, Field(gt=0, description="Samples among which each of the 64 lanes is shuffled")] = 128
    mean: Annotated[
        Literal["rgb", "image"],
        Field(description="What is subtracted: `rgb`, one colour (VGG 3.1), or `image`, pixel by pixel (AlexNet 2)"),
    ] = "rgb"
    crops: Annotated[
        Literal["image", "square"],
        Field(description="Crops are of the whole `image` (VGG 3.1), or of its central `square` (AlexNet 2)"),
    ] = "image"


@dataclass(frozen=True, config=_strict)
class InitConfig:
    """How layers that aren't copied from a parent start. `std` belongs to the Gaussian.

    `alexnet_bias` is where AlexNet's biases in conv2, conv4, conv5, fc6 and fc7 start: the paper prints 1 (section 5);
    Caffe's reproduction found that the loss stayed flat with it and used 0.1 (models/bvlc_alexnet/readme.md).
    """

    kind: Annotated[
        Literal["gaussian", "glorot", "he"], Field(description="Of layers that don't come from a parent; `--init`, too")
    ] = "gaussian"
    std: Annotated[float, Field(gt=0, description="Of Gaussian weights")] = 0.01
    alexnet_bias: Annotated[
        float, Field(ge=0, description="Where AlexNet's biases of conv2, conv4, conv5, fc6 and fc7 start (AlexNet 5)")
    ] = 1.0


@dataclass(frozen=True, config=_strict)
class TrainConfig:
    """SGD as both papers describe it. The global batch never depends on the number of workers."""

    global_batch: Annotated[int, Field(gt=0, description="Images of one update, on all workers together")]
    lr: Annotated[float, Field(gt=0, description="Learning rate; divided by 10 on a plateau, at most 3 times")]
    epochs: Annotated[int, Field(ge=0, description="Passes over the training images")]  # 0, if imported: none
    momentum: Annotated[float, Field(gt=0, lt=1, description="Of SGD")] = 0.9
    weight_decay: Annotated[float, Field(ge=0, description="L2 on weights")] = 5e-4
    dropout: Annotated[float, Field(ge=0, lt=1, description="Share of fc6's and fc7's outputs that is dropped")] = 0.5
    plateau_patience: Annotated[
        int, Field(ge=0, description="Epochs without a better validation error before the learning rate falls")
    ] = 2
    plateau_threshold: Annotated[
        float, Field(ge=0, description="By how much an error has to be better to count, as a share of all images")
    ] = 1e-3
    max_steps: Annotated[
        Positive | None, Field(description="Updates after which a run ends, if its epochs haven't ended it before")
    ] = None
    seed: Annotated[int, Field(ge=0, lt=1 << 63, description="Of first weights, order, crops and dropout")] = 0
    decay_biases: Annotated[
        bool, Field(description="L2 on biases, too; the papers don't say, and their own configurations have none")
    ] = False


@dataclass(frozen=True, config=_strict)
class Parent:
    """Where a run's first weights come from: `transplant` of a shallower net's layers, or a `copy` of the whole net."""

    run: str
    how: Literal["transplant", "copy"]


@dataclass(frozen=True, config=_strict)
class Imported:
    """That a run's weights came from a file: of which program and net, e.g. `torchvision:vgg11`, and its sha256."""

    source: str
    sha256: str


# Settings that came after the first runs were stored. At their default they aren't part of the identity, so that
# those runs keep their names.
LATER_SETTINGS: tuple[tuple[str, str, Any], ...] = (
    ("train", "decay_biases", False),
    ("data", "mean", "rgb"),
    ("data", "crops", "image"),
    ("init", "alexnet_bias", 1.0),
)


@dataclass(frozen=True, config=_strict)
class RunSpec:
    """One training run, completely. Two equal specs are the same run, wherever and on however many workers."""

    recipe: str
    model: ModelConfig
    data: DataConfig
    train: TrainConfig
    init: InitConfig
    test_scales: Annotated[
        tuple[tuple[int, ...], ...], Field(description="The Q's to average, for each table row that the net fills")
    ]
    parent: Parent | None = None
    imported: Imported | None = None

    def __post_init__(self) -> None:
        scale = self.data.train_scale
        for s in (scale,) if isinstance(scale, int) else scale:
            _check_scale("S", s, "256, 384 and 256 to 512")
        check_test_scales(q for row in self.test_scales for q in row)
        if isinstance(self.data.train_scale, tuple) and self.data.train_scale[0] > self.data.train_scale[1]:
            raise InputError(f"S range {self.data.train_scale} is empty; write the smaller number first")
        if not self.test_scales or not all(self.test_scales):
            raise InputError("test_scales has no Q to test at; write for example [[256]] or [[256],[224,256,288]]")

    @property
    def digest(self) -> str:
        """sha256 of the canonical JSON: the run's identity."""
        values = to_dict(self)
        for section, setting, default in LATER_SETTINGS:
            if values[section][setting] == default:
                del values[section][setting]
        if self.imported is None:
            del values["imported"]
        return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()

    @property
    def name(self) -> str:
        """Derived, not random: the recipe and eight digits of the identity, e.g. `vgg_e-s256-3f2a91c4`."""
        return f"{self.recipe}-{self.digest[:8]}"

    @property
    def first_weights(self) -> str:
        """`transplant` or `copy` of its parent's, `imported`, or which random weights they are."""
        if self.imported is not None:
            return "imported"
        return self.parent.how if self.parent is not None else self.init.kind


@dataclass(frozen=True, config=_strict)
class Execution:
    """Where and on what a run is carried out. Changing any of this doesn't change the run."""

    dataset_url: str
    storage_url: str
    mlflow_url: str | None = None
    workers: Positive = 1
    min_workers: Positive | None = None  # elastic: as many as there are from this to `workers`; None: just `workers`
    most_workers: Positive | None = None  # that the cluster holds after it has grown; None: it doesn't grow
    gpus_per_worker: Annotated[int, Field(ge=0)] = 0
    decode_threads: Positive | None = None  # None: one for each core that a rank has
    read_threads: Positive = 16
    prefetch_batches: Positive = 4
    prefetch_bytes: Positive = 1 << 30  # of each rank
    cache_dir: str | None = None  # on the nodes, shared by their ranks and by other jobs
    cache_bytes: Positive = 100 << 30
    precision: Literal["auto", "fp32", "bf16"] = "auto"  # of matrix products; auto: bf16 on GPUs, fp32 on CPUs
    micro_batch: Positive | None = None  # samples of a rank's share in memory at a time; None: the whole share
    compiled: bool | None = None  # run the net through torch.compile; None: on GPUs, where it can be
    exchange: Literal["auto", "allreduce", "factors", "bf16"] = "auto"  # of gradients: alexvgg.engine.exchange
    checkpoint_minutes: Annotated[float, Field(gt=0)] = 10.0  # besides one after each epoch
    keep_checkpoints: Positive = 2  # the newest; the one with the best validation error is kept besides
    max_failures: Annotated[int, Field(ge=0)] = 3  # restarts of the worker group before a run counts as failed
    submitted: str | None = None  # the storage's key of what a submission noted about its code
    job: str | None = None  # the Ray job that carries the run out
    sample_log: str | None = None  # a folder for one JSON line per step and rank: which samples were consumed


T = TypeVar("T")


def to_dict(config: Any) -> dict[str, Any]:
    """A config as JSON types (tuples become lists)."""
    return json.loads(json.dumps(asdict(config)))  # type: ignore[no-any-return]


def flat(config: Any) -> dict[str, Any]:
    """A config's settings by dotted name, as `--set` takes them."""
    values = to_dict(config)
    settings: dict[str, Any] = {}
    for field in fields(config):
        nested = is_dataclass(getattr(config, field.name))
        inner = values[field.name] if nested else None
        settings |= {f"{field.name}.{k}": v for k, v in inner.items()} if inner else {field.name: values[field.name]}
    return settings


def from_dict(kind: type[T], values: Mapping[str, Any]) -> T:
    """Build `kind` from JSON types. Raises InputError with one sentence per wrong, missing or unknown key."""
    try:
        return TypeAdapter(kind).validate_json(json.dumps(values))
    except ValidationError as error:
        raise InputError("; ".join(_explain(kind, e) for e in error.errors())) from None


def with_overrides(config: T, overrides: Mapping[str, str]) -> T:
    """A copy of `config` with dotted keys replaced, e.g. {"train.lr": "0.02"}. Values are JSON or bare text."""
    values = to_dict(config)
    for key, text in overrides.items():
        *path, leaf = key.split(".")
        target = values
        for part in path:
            target = target.get(part)  # type: ignore[assignment]
            if not isinstance(target, dict):
                break
        if not isinstance(target, dict) or leaf not in target or isinstance(target[leaf], dict):
            raise InputError(f"there is no setting {key!r}{did_you_mean(key, flat(config), 'the settings are')}")
        try:
            target[leaf] = json.loads(text)
        except json.JSONDecodeError:
            target[leaf] = text
    return from_dict(type(config), values)


def parse_settings(settings: Iterable[str]) -> dict[str, str]:
    """`["train.lr=0.02"]` -> `{"train.lr": "0.02"}`. Raises InputError for anything without `=`."""
    pairs = {}
    for setting in settings:
        key, equals, value = setting.partition("=")
        if not equals:
            raise InputError(f"--set {setting} has no value; write --set KEY=VALUE, e.g. --set train.lr=0.02")
        pairs[key] = value
    return pairs


def _described(kind: type, setting: str) -> str | None:
    """The rule of a setting in words, where its type has one."""
    about: Any = TypeAdapter(kind).json_schema()["properties"].get(setting, {})
    found = (part.get("description") for part in (about, *about.get("anyOf", ())))
    return next((words for words in found if words is not None), None)


def _explain(kind: type, error: Any) -> str:
    if error["type"] == "value_error":  # one of ours, which is a sentence; what was put in may hold a secret
        return str(error["ctx"]["error"])
    where = ".".join(str(part) for part in error["loc"]) or kind.__name__
    if error["type"] == "string_pattern_mismatch" and (rule := _described(kind, where)) is not None:
        return f"{where} must be {rule}, not {error['input']!r}"
    if error["type"] == "unexpected_keyword_argument":
        return f"{where} is not a setting of {kind.__name__}{did_you_mean(where, (f.name for f in fields(kind)))}"
    return f"{where}: {error['msg']}, not {error['input']!r}" if error["type"] != "missing" else f"{where} is missing"
