"""Both papers as data: every named run with its hyper-parameters and its parent, and the two sizes to run them at.

A recipe holds its parent itself, not the parent's name. So an unknown parent or a cycle can't be written down.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeVar

from alexvgg.config import PAPER_CROP, Scale
from alexvgg.errors import InputError, did_you_mean

JITTER = (256, 512)  # S drawn per image from [Smin; Smax] (VGG section 3.1)
SCALES: dict[str, Scale] = {"256": 256, "384": 384, "jitter": JITTER}  # by the name that --scale takes


@dataclass(frozen=True)
class Recipe:
    """One trained net of a paper.

    `parent` gives the first weights: of a different net by transplant, of the same net by copying it whole.
    `test_scales` are the rows this net fills: Q of Table 3, then the three Q's of Table 4 (sections 4.1, 4.2).
    `iterations` end a run that its epochs don't end before. `settings` are what it has of its own in the spec, and
    `shows` is what the paper says of it, for the nets beside the tables.
    """

    name: str
    model: str
    scale: Scale
    lr: float
    global_batch: int
    epochs: int
    test_scales: tuple[tuple[int, ...], ...]
    parent: "Recipe | None" = None
    iterations: int | None = None
    settings: tuple[tuple[str, Any], ...] = ()
    shows: str | None = None

    @property
    def target(self) -> str:
        """What a submission calls it: its name without the scale."""
        return self.name.removesuffix(f"-{scale_name(self.scale)}")

    @property
    def how(self) -> Literal["transplant", "copy"]:
        assert self.parent is not None
        return "copy" if self.parent.model == self.model else "transplant"


def scale_name(scale: Scale) -> str:
    """`s256`, `s384`, or `jitter` for a range."""
    return f"s{scale}" if isinstance(scale, int) else "jitter"


# Fixed S is tested at Q=S and {S-32, S, S+32}; jitter at 0.5(Smin+Smax) and {Smin, 0.5(Smin+Smax), Smax}.
TEST_SCALES: dict[Scale, tuple[tuple[int, ...], ...]] = {
    256: ((256,), (224, 256, 288)),
    384: ((384,), (352, 384, 416)),
    JITTER: ((384,), (256, 384, 512)),
}


def _vgg(model: str, scale: Scale, *, lr: float = 1e-2, parent: Recipe | None) -> Recipe:
    # Batch 256, 370K iterations, 74 epochs (section 3.1): of ImageNet's 5,005 batches, the last epoch lacks 370. Of the
    # fine-tuned nets the paper prints no length, and a learning rate for S=384 only; they take these, and 1e-3.
    return Recipe(f"{model}-{scale_name(scale)}", model, scale, lr, 256, 74, TEST_SCALES[scale], parent, 370_000)


# Section 3.1: A from random weights; the deeper nets from A; S=384 from S=256 at lr 1e-3; jitter from S=384.
_A = _vgg("vgg_a", 256, parent=None)
_A_LRN = _vgg("vgg_a_lrn", 256, parent=None)
_B = _vgg("vgg_b", 256, parent=_A)
_B_SHALLOW = replace(
    _vgg("vgg_b_shallow", 256, parent=None),
    shows="VGG 4.1: 5x5 instead of two 3x3 raise B's top-1 error by 7 % on a centre crop: compare val/top1_error",
)
_C = _vgg("vgg_c", 256, parent=_A)
_C_384 = _vgg("vgg_c", 384, lr=1e-3, parent=_C)
_C_JITTER = _vgg("vgg_c", JITTER, lr=1e-3, parent=_C_384)
_D = _vgg("vgg_d", 256, parent=_A)
_D_384 = _vgg("vgg_d", 384, lr=1e-3, parent=_D)
_D_JITTER = _vgg("vgg_d", JITTER, lr=1e-3, parent=_D_384)
_E = _vgg("vgg_e", 256, parent=_A)
_E_384 = _vgg("vgg_e", 384, lr=1e-3, parent=_E)
_E_JITTER = _vgg("vgg_e", JITTER, lr=1e-3, parent=_E_384)
# AlexNet section 5: batch 128, about 90 epochs, from random weights, tested at the scale it was trained at. Section 2:
# "we subtracted the mean activity over the training set from each pixel".
_ALEXNET = Recipe(
    "alexnet-s256", "alexnet", 256, 1e-2, 128, 90, ((256,),),
    settings=(("data.mean", "image"), ("data.crops", "square")),
)  # fmt: skip


def _ablation(target: str, shows: str, *, model: str | None = None, **settings: Any) -> Recipe:
    own = tuple((key.replace("__", "."), value) for key, value in settings.items())
    return replace(
        _ALEXNET, name=f"{target}-s256", model=model or target, settings=(*_ALEXNET.settings, *own), shows=shows
    )


def _four_layers(activation: str, lr: float) -> Recipe:
    # CIFAR-10's 32-pixel images at full width, whatever the geometry. "No regularization of any kind" (section 3.1) but
    # the crops, 32 of 37 pixels, and a dataset's flips. The figure is the report's chart of training errors. As in the
    # paper each net has the learning rate that makes it learn fastest: of 0.01, 0.003 and 0.001 on the digits, where
    # the loss after four epochs is 0.20 with ReLU and 0.43 with tanh.
    recipe = _ablation(
        f"fourlayer_{activation}",
        "AlexNet 3.1, figure 1: ReLU reaches 25 % training error on CIFAR-10 six times as fast as tanh",
        model__crop=32, model__width=1.0, data__colour_std=0.0, train__weight_decay=0.0, train__dropout=0.0,
        init__std=0.01,
    )  # fmt: skip
    return replace(recipe, lr=lr)


# What AlexNet's text says of nets that no table has. Errors are those of ILSVRC-2010, top-1 and top-5.
_ABLATIONS = (
    _ablation("alexnet_no_lrn", "AlexNet 3.3: LRN lowers the errors by 1.4 and 1.2 %"),
    _ablation("alexnet_no_overlap", "AlexNet 3.4: overlapping pooling lowers the errors by 0.4 and 0.3 %"),
    _ablation("alexnet_half", "AlexNet 3.2: two GPUs' kernels lower the errors by 1.7 and 1.2 % against one's"),
    _ablation("alexnet_no_colour", "AlexNet 4.1: colour shifts lower the top-1 error by over 1 %", model="alexnet",
              data__colour_std=0.0),
    _ablation("alexnet_no_conv3", "AlexNet 7: removing any middle layer costs about 2 % top-1"),
    _ablation("alexnet_no_conv4", "AlexNet 7: removing any middle layer costs about 2 % top-1"),
    _four_layers("relu", 1e-3),
    _four_layers("tanh", 1e-2),
)  # fmt: skip

RECIPES: dict[str, Recipe] = {
    r.name: r
    for r in (
        _ALEXNET, _A, _A_LRN, _B, _B_SHALLOW, _C, _C_384, _C_JITTER,
        _D, _D_384, _D_JITTER, _E, _E_384, _E_JITTER, *_ABLATIONS,
    )
}  # fmt: skip


@dataclass(frozen=True)
class Geometry:
    """The size at which the recipes run. None keeps the recipe's own value; with other epochs, no iterations end it."""

    name: str
    crop: int
    alexnet_crop: int  # AlexNet's stride and pools need a larger input than VGG's
    width: float
    init_std: float
    shallow_init_std: float  # B-shallow's 5x5 kernels sum 25/9 as many inputs as 3x3 kernels do
    global_batch: int | None = None
    epochs: int | None = None
    copy_epochs: int | None = None  # of runs that go on from the same net at another scale
    plateau_patience: int = 2


GEOMETRIES: dict[str, Geometry] = {
    g.name: g
    for g in (
        # The papers print N(0, 0.01): AlexNet as a standard deviation, VGG as a variance of 1e-2, with which no
        # deep net trains (it multiplies the activations of A by 6e5). 0.01 is what many reproductions in Caffe use.
        Geometry("paper", crop=224, alexnet_crop=224, width=1.0, init_std=0.01, shallow_init_std=0.01),
        # For a laptop. Narrow layers need a larger std for the signal to arrive; few steps per epoch need patience.
        # At 0.05 E learns from A in some seeds only, and from random weights in none; at 0.06 it needs no A.
        Geometry(
            "small",
            crop=32,
            alexnet_crop=64,
            width=0.125,
            init_std=0.055,
            shallow_init_std=0.033,
            global_batch=64,
            epochs=24,
            copy_epochs=8,
            plateau_patience=12,
        ),
    )
}


T = TypeVar("T")


def choose(known: Mapping[str, T], name: str, what: str) -> T:
    """`known[name]`. Raises InputError that names a close match, or all there are."""
    if name in known:
        return known[name]
    raise InputError(f"there is no {what} {name!r}{did_you_mean(name, known)}")


# The names that other libraries have for VGG's nets.
TORCHVISION = {"vgg11": "vgg_a", "vgg13": "vgg_b", "vgg16": "vgg_d", "vgg19": "vgg_e"}


def find_recipe(model: str, scale: str) -> Recipe:
    """The recipe for a model's name and `256`, `384` or `jitter`. Raises InputError naming what the papers train."""
    by_model: dict[str, dict[str, Recipe]] = {}
    for r in RECIPES.values():
        by_model.setdefault(r.target, {})[scale_name(r.scale).removeprefix("s")] = r
    if model not in by_model and (ours := TORCHVISION.get(model.lower())) is not None:
        raise InputError(
            f"there is no model {model!r}; torchvision's {model.lower()} is {ours!r} here, as in VGG Table 1"
        )
    scales = choose(by_model, model, "model")
    if scale.isdecimal() and int(scale) < PAPER_CROP:
        raise InputError(
            f"S={scale} is smaller than the {PAPER_CROP}-pixel crop: no crop fits. Use {', '.join(scales)}"
        )
    if scale not in scales:
        raise InputError(f"the paper trains {model} at S = {', '.join(scales)}, not at {scale!r}")
    return scales[scale]


def lineage(targets: Iterable[Recipe]) -> list[Recipe]:
    """The targets and all their ancestors, each once, parents first."""
    ordered: dict[str, Recipe] = {}

    def visit(r: Recipe) -> None:
        if r.parent is not None:
            visit(r.parent)
        ordered.setdefault(r.name, r)

    for target in targets:
        visit(target)
    return list(ordered.values())
