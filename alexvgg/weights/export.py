"""A finished run's net in other programs' formats, each with its preprocessing. No format is a pickle."""

import importlib.util
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn

from alexvgg.errors import InputError
from alexvgg.models.torchvision_weights import TWINS, check_twin, to_torchvision
from alexvgg.weights.trained import Trained, describe_input

SUFFIXES = {"torchvision": ".torchvision.safetensors", "safetensors": ".safetensors", "onnx": ".onnx", "pt2": ".pt2"}
KEY = "alexvgg"  # of the description in the file's metadata

MEAN = "mean_image"  # of a net that subtracts one, beside the weights
PIXELS, SCORES = "pixels", "scores"  # input and output of a graph


class PixelNet(nn.Module):
    """The net with the subtraction of the mean before it, so that a graph takes plain pixels from 0 to 255."""

    mean: Tensor

    def __init__(self, trained: Trained) -> None:
        super().__init__()
        self.net = trained.net
        self.register_buffer("mean", _over_pixels(trained.mean))

    def forward(self, pixels: Tensor) -> Tensor:
        return self.net(pixels - self.mean)  # type: ignore[no-any-return]


def export(trained: Trained, format: str, path: Path) -> str:
    """Write `path` in one of SUFFIXES' formats. Returns a sentence that says how to load it.

    Raises InputError for torchvision's if it has no such net, and for onnx if its packages aren't there.
    """
    return FORMATS[format](trained, path)


def _over_pixels(mean: Tensor) -> Tensor:
    """(1, 3, 1, 1) of a colour, (1, 3, crop, crop) of an image."""
    return mean[None] if mean.ndim == 3 else mean.view(1, 3, 1, 1)


def _safetensors(trained: Trained, path: Path) -> str:
    m, state, take = trained.run.spec.model, trained.net.state_dict(), ""
    if trained.mean.ndim == 1:
        about = describe_input(trained, scale=1, mean=trained.mean.tolist(), std=(1, 1, 1))
    else:  # too many numbers for the description
        about = describe_input(trained, scale=1, mean=f"the tensor {MEAN}, pixel by pixel", std=(1, 1, 1))
        state, take = state | {MEAN: trained.mean}, f"; mean = state.pop({MEAN!r})"
    _write_tensors(path, state, about)
    form = f"{m.name!r}, num_classes={m.num_classes}, width={m.width:g}, crop={m.crop}"
    return (
        f"import alexvgg.models, safetensors.torch; state = safetensors.torch.load_file({str(path)!r}){take}; "
        f"net = alexvgg.models.build({form}); net.load_state_dict(state)"
    )


def _torchvision(trained: Trained, path: Path) -> str:
    model = trained.run.spec.model
    check_twin(model)
    if trained.mean.ndim == 3:
        raise InputError("this net subtracts a mean image, torchvision a mean colour. Use another format")
    mean = [m / 255 for m in trained.mean.tolist()]
    about = describe_input(trained, scale=1 / 255, mean=mean, std=(1 / 255,) * 3)
    _write_tensors(path, to_torchvision(model.name, trained.net.state_dict()), about)
    return (
        "import safetensors.torch, torchvision; "
        f"net = torchvision.models.{TWINS[model.name]}(num_classes={model.num_classes}); "
        f"net.load_state_dict(safetensors.torch.load_file({str(path)!r})); its input is "
        f"torchvision.transforms.Normalize({[round(m, 6) for m in mean]}, [1 / 255] * 3) of pixels from 0 to 1"
    )


def _write_tensors(path: Path, state: Mapping[str, Tensor], about: Mapping[str, Any]) -> None:
    tensors = {key: tensor.contiguous() for key, tensor in state.items()}
    path.write_bytes(safetensors.torch.save(tensors, metadata={"format": "pt", KEY: json.dumps(about)}))


def _onnx(trained: Trained, path: Path) -> str:
    for package in ("onnx", "onnxscript"):
        if importlib.util.find_spec(package) is None:
            raise InputError(f"this format needs the package {package}: install alexvgg[onnx]")
    net, example, shapes = _graph(trained)
    program = torch.onnx.export(
        net, (example,), dynamo=True, dynamic_shapes=shapes, input_names=[PIXELS], output_names=[SCORES], verbose=False
    )
    assert program is not None
    program.model.metadata_props[KEY] = json.dumps(_of_pixels(trained))
    program.save(path, external_data=False)
    return f"session = onnxruntime.InferenceSession({str(path)!r}); session.run(None, {{{PIXELS!r}: pixels}})"


def _pt2(trained: Trained, path: Path) -> str:
    net, example, shapes = _graph(trained)
    program = torch.export.export(net, (example,), dynamic_shapes=shapes)
    torch.export.save(program, path, extra_files={f"{KEY}.json": json.dumps(_of_pixels(trained))})
    return f"net = torch.export.load({str(path)!r}).module(); net(pixels)"


def _graph(trained: Trained) -> tuple[PixelNet, Tensor, dict[str, Any]]:
    """The module to trace, an example of its input, and that the number of images is open."""
    crop = trained.run.spec.model.crop
    example = torch.zeros(2, 3, crop, crop)  # of one image, the tracer would take it that there is always one
    return PixelNet(trained).eval(), example, {PIXELS: {0: torch.export.Dim("images", min=1)}}


def _of_pixels(trained: Trained) -> dict[str, Any]:
    return describe_input(trained, scale=1, mean=(0, 0, 0), std=(1, 1, 1))


FORMATS: dict[str, Callable[[Trained, Path], str]] = {
    "torchvision": _torchvision, "safetensors": _safetensors, "onnx": _onnx, "pt2": _pt2,
}  # fmt: skip
