"""Nets in other programs' formats: those programs give the same scores."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import safetensors
import safetensors.torch
import torch
from images import mixed_dataset
from torch import Tensor

from alexvgg.config import Execution
from alexvgg.data.shards import Dataset
from alexvgg.data.store import open_store
from alexvgg.engine.world import World
from alexvgg.errors import InputError
from alexvgg.models import build
from alexvgg.planning import images_of, plan_runs
from alexvgg.recipes import GEOMETRIES, RECIPES
from alexvgg.run import train
from alexvgg.weights.export import FORMATS, SUFFIXES, export
from alexvgg.weights.predict import predict
from alexvgg.weights.trained import Trained, open_trained

ALONE = World(0, 1, torch.device("cpu"))
THIN = replace(GEOMETRIES["small"], width=1 / 64)
NETS = ("vgg_a_lrn-s256", "vgg_c-s256", "alexnet-s256")  # LRN, 1x1 convolutions, groups

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return mixed_dataset(tmp_path_factory.mktemp("pictures"), 3)


@pytest.fixture(scope="module", params=NETS)
def trained(request: pytest.FixtureRequest, pictures: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    url = tmp_path_factory.mktemp("storage").as_uri()
    recipe = replace(RECIPES[request.param], parent=None)
    settings = {"train.max_steps": "1", "test_scales": "[[256]]"}
    (spec,) = plan_runs([recipe], images_of(pictures), THIN, overrides=settings)
    train(spec, Execution(pictures.store.url, url), ALONE)
    return open_trained(open_store(url), pictures.store, spec.name)


@pytest.fixture
def pixels(trained: Trained) -> Tensor:
    """Three images; graphs must take any number."""
    generator = torch.Generator().manual_seed(0)
    crop = trained.run.spec.model.crop
    return torch.randint(0, 256, (3, 3, crop, crop), generator=generator).float()


@pytest.fixture
def scores(trained: Trained, pixels: Tensor) -> Tensor:
    with torch.inference_mode():
        mean = trained.mean if trained.mean.ndim == 3 else trained.mean[:, None, None]
        return trained.net(pixels - mean)


def test_safetensors(trained: Trained, pixels: Tensor, scores: Tensor, tmp_path: Path) -> None:
    path = tmp_path / "net.safetensors"
    assert f"load_file({str(path)!r})" in export(trained, "safetensors", path), "as it was given, with its folder"
    with safetensors.safe_open(path, "pt") as file:
        about = json.loads(file.metadata()["alexvgg"])
    net = build(about["model"], num_classes=len(about["classes"]), width=about["width"], crop=about["crop"]).eval()
    state = safetensors.torch.load_file(path)
    if about["model"] == "alexnet":
        assert about["mean"] == "the tensor mean_image, pixel by pixel"
        mean = state.pop("mean_image")
    else:
        mean = torch.tensor(about["mean"])[:, None, None]
    net.load_state_dict(state)
    std = torch.tensor(about["std"])[:, None, None]
    with torch.inference_mode():
        assert torch.equal(net((pixels * about["scale"] - mean) / std), scores)


def test_onnx(trained: Trained, pixels: Tensor, scores: Tensor, tmp_path: Path) -> None:
    """A single file."""
    path = tmp_path / "net.onnx"
    export(trained, "onnx", path)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    for n in (1, 3):
        (found,) = session.run(None, {"pixels": pixels[:n].numpy()})
        np.testing.assert_allclose(found, scores[:n].numpy(), rtol=1e-5, atol=1e-5)
    about = json.loads(session.get_modelmeta().custom_metadata_map["alexvgg"])
    assert (about["scale"], about["mean"], about["std"]) == (1, [0, 0, 0], [1, 1, 1])
    assert list(tmp_path.iterdir()) == [path]


def test_pt2(trained: Trained, pixels: Tensor, scores: Tensor, tmp_path: Path) -> None:
    path = tmp_path / "net.pt2"
    export(trained, "pt2", path)
    about = {"alexvgg.json": ""}
    net = torch.export.load(path, extra_files=about).module()
    with torch.inference_mode():
        for n in (1, 3):
            torch.testing.assert_close(net(pixels[:n]), scores[:n], rtol=1e-5, atol=1e-5)
    assert json.loads(about["alexvgg.json"])["run"] == trained.run.name


def test_torchvision_subtracts_no_mean_image(trained: Trained, tmp_path: Path) -> None:
    spec = trained.run.spec
    full = replace(spec, model=replace(spec.model, name="vgg_a", width=1.0, crop=224))
    images = replace(trained, run=replace(trained.run, spec=full), mean=torch.zeros(3, 224, 224))
    with pytest.raises(InputError, match="subtracts a mean image"):
        export(images, "torchvision", tmp_path / "net.safetensors")


def test_torchvision_has_no_twin_of_them(trained: Trained, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="torchvision"):
        export(trained, "torchvision", tmp_path / "net.safetensors")
    assert not list(tmp_path.iterdir())


def test_predictions_see_the_same_input(trained: Trained, pixels: Tensor, scores: Tensor) -> None:
    """A picture of the crop's size at Q=224 is its own centre crop."""
    image = pixels[0].byte().permute(1, 2, 0).contiguous().numpy()
    best, *_ = predict(trained, image, method="central", test_scales=(224,), top=1)
    assert best.label == scores[0].argmax()
    assert best.probability == pytest.approx(scores[0].double().softmax(dim=0).max().item(), rel=1e-5)


def test_every_format_has_a_suffix() -> None:
    assert list(FORMATS) == list(SUFFIXES)
