"""Tables 3 and 4 of the VGG paper: validation errors in per cent."""

from dataclasses import dataclass

from alexvgg.config import Scale
from alexvgg.recipes import JITTER, RECIPES, Recipe, scale_name


@dataclass(frozen=True)
class PaperRow:
    """One row: net, S, the Q's that are averaged, and the paper's errors."""

    model: str
    train_scale: Scale
    test_scales: tuple[int, ...]
    top1: float
    top5: float

    @property
    def recipe(self) -> Recipe:
        """The recipe whose net fills this row."""
        return RECIPES[f"{self.model}-{scale_name(self.train_scale)}"]


TABLES: dict[str, tuple[PaperRow, ...]] = {
    # Single test scale (section 4.1).
    "table3": (
        PaperRow("vgg_a", 256, (256,), 29.6, 10.4),
        PaperRow("vgg_a_lrn", 256, (256,), 29.7, 10.5),
        PaperRow("vgg_b", 256, (256,), 28.7, 9.9),
        PaperRow("vgg_c", 256, (256,), 28.1, 9.4),
        PaperRow("vgg_c", 384, (384,), 28.1, 9.3),
        PaperRow("vgg_c", JITTER, (384,), 27.3, 8.8),
        PaperRow("vgg_d", 256, (256,), 27.0, 8.8),
        PaperRow("vgg_d", 384, (384,), 26.8, 8.7),
        PaperRow("vgg_d", JITTER, (384,), 25.6, 8.1),
        PaperRow("vgg_e", 256, (256,), 27.3, 9.0),
        PaperRow("vgg_e", 384, (384,), 26.9, 8.7),
        PaperRow("vgg_e", JITTER, (384,), 25.5, 8.0),
    ),
    # Multiple test scales (section 4.2): the scale-jitter results.
    "table4": (
        PaperRow("vgg_b", 256, (224, 256, 288), 28.2, 9.6),
        PaperRow("vgg_c", 256, (224, 256, 288), 27.7, 9.2),
        PaperRow("vgg_c", 384, (352, 384, 416), 27.8, 9.2),
        PaperRow("vgg_c", JITTER, (256, 384, 512), 26.3, 8.2),
        PaperRow("vgg_d", 256, (224, 256, 288), 26.6, 8.6),
        PaperRow("vgg_d", 384, (352, 384, 416), 26.5, 8.6),
        PaperRow("vgg_d", JITTER, (256, 384, 512), 24.8, 7.5),
        PaperRow("vgg_e", 256, (224, 256, 288), 26.9, 8.7),
        PaperRow("vgg_e", 384, (352, 384, 416), 26.7, 8.6),
        PaperRow("vgg_e", JITTER, (256, 384, 512), 24.8, 7.5),
    ),
}
