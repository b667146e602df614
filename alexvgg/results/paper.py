"""The results tables of both papers: validation errors in per cent, and which nets, tested how, give each row.

`ablations` is a table that neither paper prints: what their texts say of nets beside their tables.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from alexvgg.config import Scale
from alexvgg.recipes import JITTER, RECIPES, Recipe, scale_name

Method = Literal["dense", "multicrop", "both", "tencrop"]


@dataclass(frozen=True)
class PaperNet:
    """A net by its recipe's target, the S it was trained at, and the Q's over which its posteriors are averaged."""

    model: str
    train_scale: Scale
    test_scales: tuple[int, ...]

    @property
    def recipe(self) -> Recipe:
        """The recipe of the runs that give this net."""
        return RECIPES[f"{self.model}-{scale_name(self.train_scale)}"]


@dataclass(frozen=True)
class PaperRow:
    """One row. `nets` are fused if there are several; a net that stands n times means n runs of different seeds.

    Rows without nets are other people's results, or of data that nobody can get any more: to be read beside ours.
    """

    nets: tuple[PaperNet, ...]
    method: Method
    top1: float | None  # None where the paper prints none
    top5: float | None
    top5_test: float | None = None  # on the test set, whose labels were never published
    title: str = ""


def _row(model: str, scale: Scale, q: tuple[int, ...], top1: float, top5: float, method: Method = "dense") -> PaperRow:
    return PaperRow((PaperNet(model, scale, q),), method, top1, top5)


def _ablation(target: str, title: str, q: tuple[int, ...] = (256,)) -> PaperRow:
    """A net that a paper compares with another one in its text, by a difference that stands in the title."""
    return PaperRow((PaperNet(target, 256, q),), own_method(target), None, None, None, title)


def _published(title: str, top1: float | None, top5: float | None, top5_test: float | None) -> PaperRow:
    return PaperRow((), "dense", top1, top5, top5_test, title)


def own_method(model: str) -> Method:
    """How the net's own paper tests it first: what the end of a training run evaluates."""
    return "dense" if model.startswith("vgg") else "tencrop"


_S256, _S384, _THREE = (224, 256, 288), (352, 384, 416), (256, 384, 512)
_D, _E = PaperNet("vgg_d", JITTER, _THREE), PaperNet("vgg_e", JITTER, _THREE)
_SEVEN = (
    PaperNet("vgg_d", 256, _S256), PaperNet("vgg_d", 384, _S384), _D, PaperNet("vgg_c", 256, _S256),
    PaperNet("vgg_c", 384, _S384), PaperNet("vgg_e", 256, _S256), PaperNet("vgg_e", 384, _S384),
)  # fmt: skip
_ALEXNET = PaperNet("alexnet", 256, (256,))

ABLATIONS = "ablations"
TABLES: dict[str, tuple[PaperRow, ...]] = {
    # VGG, single test scale (section 4.1).
    "table3": (
        _row("vgg_a", 256, (256,), 29.6, 10.4),
        _row("vgg_a_lrn", 256, (256,), 29.7, 10.5),
        _row("vgg_b", 256, (256,), 28.7, 9.9),
        _row("vgg_c", 256, (256,), 28.1, 9.4),
        _row("vgg_c", 384, (384,), 28.1, 9.3),
        _row("vgg_c", JITTER, (384,), 27.3, 8.8),
        _row("vgg_d", 256, (256,), 27.0, 8.8),
        _row("vgg_d", 384, (384,), 26.8, 8.7),
        _row("vgg_d", JITTER, (384,), 25.6, 8.1),
        _row("vgg_e", 256, (256,), 27.3, 9.0),
        _row("vgg_e", 384, (384,), 26.9, 8.7),
        _row("vgg_e", JITTER, (384,), 25.5, 8.0),
    ),
    # Multiple test scales (section 4.2): the scale-jitter results.
    "table4": (
        _row("vgg_b", 256, _S256, 28.2, 9.6),
        _row("vgg_c", 256, _S256, 27.7, 9.2),
        _row("vgg_c", 384, _S384, 27.8, 9.2),
        _row("vgg_c", JITTER, _THREE, 26.3, 8.2),
        _row("vgg_d", 256, _S256, 26.6, 8.6),
        _row("vgg_d", 384, _S384, 26.5, 8.6),
        _row("vgg_d", JITTER, _THREE, 24.8, 7.5),
        _row("vgg_e", 256, _S256, 26.9, 8.7),
        _row("vgg_e", 384, _S384, 26.7, 8.6),
        _row("vgg_e", JITTER, _THREE, 24.8, 7.5),
    ),
    # Dense against multi-crop evaluation (section 4.3).
    "table5": (
        _row("vgg_d", JITTER, _THREE, 24.8, 7.5, "dense"),
        _row("vgg_d", JITTER, _THREE, 24.6, 7.5, "multicrop"),
        _row("vgg_d", JITTER, _THREE, 24.4, 7.2, "both"),
        _row("vgg_e", JITTER, _THREE, 24.8, 7.5, "dense"),
        _row("vgg_e", JITTER, _THREE, 24.6, 7.4, "multicrop"),
        _row("vgg_e", JITTER, _THREE, 24.4, 7.1, "both"),
    ),
    # Fusion (section 4.4). Of the seven nets, which were submitted to ILSVRC, the paper fine-tuned D with jitter in the
    # FC layers only. Ours is the D of the other rows.
    "table6": (
        PaperRow(_SEVEN, "dense", 24.7, 7.5, 7.3, "7 nets: D, C, E at 256 and 384, D jitter (paper: FC tuned)"),
        PaperRow((_D, _E), "dense", 24.0, 7.1, 7.0, "2 nets: D and E, jitter"),
        PaperRow((_D, _E), "multicrop", 23.9, 7.2, None, "2 nets: D and E, jitter"),
        PaperRow((_D, _E), "both", 23.7, 6.8, 6.8, "2 nets: D and E, jitter"),
    ),
    # Beside the state of the art (section 4.5).
    "table7": (
        PaperRow((_D, _E), "both", 23.7, 6.8, 6.8, "VGG, 2 nets"),
        PaperRow((_E,), "both", 24.4, 7.1, 7.0, "VGG, 1 net"),
        PaperRow(_SEVEN, "dense", 24.7, 7.5, 7.3, "VGG, 7 nets (paper: D jitter's FC tuned)"),
        _published("GoogLeNet, 1 net", None, 7.9, 7.9),
        _published("GoogLeNet, 7 nets", None, 6.7, 6.7),
        _published("MSRA, 11 nets", None, None, 8.1),
        _published("MSRA, 1 net", 27.9, 9.1, 9.1),
        _published("Clarifai, several nets", None, None, 11.7),
        _published("Clarifai, 1 net", None, None, 12.5),
        _published("Zeiler & Fergus, 6 nets", 36.0, 14.7, 14.8),
        _published("Zeiler & Fergus, 1 net", 37.5, 16.0, 16.1),
        _published("OverFeat, 7 nets", 34.0, 13.2, 13.6),
        _published("OverFeat, 1 net", 35.7, 14.2, None),
        _published("AlexNet, 5 nets", 38.1, 16.4, 16.4),
        _published("AlexNet, 1 net", 40.7, 18.2, None),
    ),
    # AlexNet's Table 2. Nets with a star were first trained on the whole ImageNet release of autumn 2011.
    "alexnet": (
        PaperRow((_ALEXNET,), "tencrop", 40.7, 18.2, None, "1 CNN"),
        PaperRow((_ALEXNET,) * 5, "tencrop", 38.1, 16.4, 16.4, "5 CNNs"),
        _published("1 CNN*", 39.0, 16.6, None),
        _published("7 CNNs*", 36.7, 15.4, 15.3),
    ),
    # `alexvgg recipe` has the sentences. AlexNet's differences are of ILSVRC-2010, whose test set has labels.
    ABLATIONS: (
        _ablation("alexnet", "AlexNet"),
        _ablation("alexnet_no_lrn", "no LRN (paper: +1.4, top-5 +1.2)"),
        _ablation("alexnet_no_overlap", "no overlapping pooling (+0.4, +0.3)"),
        _ablation("alexnet_half", "one GPU's half of it (+1.7, +1.2)"),
        _ablation("alexnet_no_colour", "no colour shifts (over +1)"),
        _ablation("alexnet_no_conv3", "no conv3 (about +2)"),
        _ablation("alexnet_no_conv4", "no conv4 (about +2)"),
        _ablation("fourlayer_relu", "four layers, ReLU"),
        _ablation("fourlayer_tanh", "four layers, tanh (learns a sixth as fast)"),
        _ablation("vgg_b", "VGG B"),
        _ablation("vgg_b_shallow", "VGG B, a 5x5 for each two 3x3 (+7, one crop)"),
    ),
}


def asked(row: PaperRow) -> Counter[tuple[str, tuple[int, ...]]]:
    """Recipe and test scales of each of its nets."""
    return Counter((net.recipe.name, net.test_scales) for net in row.nets)


def tested(recipes: Mapping[str, str], document: Mapping[str, Any]) -> Counter[tuple[str, tuple[int, ...]]] | None:
    """The same of what was evaluated; None if a run of it isn't among `recipes`, or stands twice: it is one net."""
    members = {m["run"]: m for m in document["members"]}
    if len(members) < len(document["members"]) or not members.keys() <= recipes.keys():
        return None
    return Counter((recipes[name], tuple(sorted(m["test_scales"]))) for name, m in members.items())


def cells(recipes: Mapping[str, str], documents: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """What documents say of single nets, `eval/dense-q224-256-288/top1_error`, and the table cells that they fill, by
    metric name, beside the paper's: `table4/top1_error`, `paper/…`.

    `recipes` says which recipe each run is of. Where a table tests the same nets by several methods, names say which:
    `table5/multicrop/top1_error`.
    """
    found: dict[str, float] = {}
    for document in (d for d in documents if len(d["members"]) == 1):
        scales = "-".join(map(str, sorted(document["members"][0]["test_scales"])))
        for metric in ("top1_error", "top5_error"):
            if document[metric] is not None:
                found[f"eval/{document['method']}-q{scales}/{metric}"] = document[metric]
    for table, rows in TABLES.items():
        for row in rows:
            several = sum(r.nets == row.nets for r in rows) > 1
            name = f"{table}/{row.method}" if several else table
            for document in documents:
                if document["method"] != row.method or tested(recipes, document) != asked(row):
                    continue
                for metric, printed in (("top1_error", row.top1), ("top5_error", row.top5)):
                    if document[metric] is not None and printed is not None:
                        found[f"{name}/{metric}"] = document[metric]
                        found[f"paper/{name}/{metric}"] = printed
                        found[f"delta/{name}/{metric}"] = document[metric] - printed
    return found
