"""`alexvgg import`, `export` and `predict`, from torchvision's file to torchvision's net and to a deeper run."""

import json
import math
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import safetensors
import safetensors.torch
import torch
import torchvision
from click.testing import CliRunner, Result
from images import mixed_dataset
from PIL import Image
from torchvision.transforms.v2 import functional as T

from alexvgg.cli import main
from alexvgg.config import ModelConfig, Parent
from alexvgg.data.shards import Dataset
from alexvgg.data.store import Store, open_store
from alexvgg.errors import InputError
from alexvgg.first_weights import first_weights
from alexvgg.models.torchvision_weights import MEAN, STD
from alexvgg.planning import Images, Start, images_of, plan_runs, start_from
from alexvgg.recipes import GEOMETRIES, RECIPES
from alexvgg.runs import read_run, read_spec
from alexvgg.weights.importing import SOURCES, imported_spec
from alexvgg.weights.trained import open_trained

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return mixed_dataset(tmp_path_factory.mktemp("pictures"), 3)


@pytest.fixture(scope="module")
def theirs() -> torchvision.models.VGG:
    torch.manual_seed(0)
    return torchvision.models.vgg11(weights=None, num_classes=10, init_weights=False).eval()


@pytest.fixture(scope="module")
def storage(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return open_store(tmp_path_factory.mktemp("storage").as_uri())


@pytest.fixture(scope="module")
def command(storage: Store, pictures: Dataset) -> Callable[..., Result]:
    def run(*arguments: str) -> Result:
        return CliRunner().invoke(main, [*arguments, "--storage", storage.url, "--dataset", pictures.store.url])

    return run


@pytest.fixture(scope="module")
def imported(
    theirs: torchvision.models.VGG, command: Callable[..., Result], tmp_path_factory: pytest.TempPathFactory
) -> str:
    """The name of the run that torchvision's weights are, saved as torchvision saves them."""
    path = tmp_path_factory.mktemp("weights") / "vgg11.pth"
    torch.save(theirs.state_dict(), path)
    result = command("import", "torchvision:vgg11", str(path))
    assert result.exit_code == 0, result.output
    return result.stdout.strip()


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    blocks = np.random.default_rng(0).integers(0, 256, (5, 6, 3), np.uint8)
    path = tmp_path / "picture.png"
    Image.fromarray(blocks).resize((320, 240), Image.Resampling.BICUBIC).save(path)
    return path


def test_an_imported_run_is_finished_and_says_where_it_came_from(imported: str, storage: Store) -> None:
    run = read_run(storage, imported)
    assert run.state == "finished"
    assert run.spec.name == imported
    assert imported.startswith("torchvision-vgg11-")
    assert run.spec.imported is not None
    assert run.spec.imported.source == "torchvision:vgg11"
    assert (run.spec.train.epochs, run.spec.parent) == (0, None)
    assert {layer["source"] for layer in json.loads(storage.get(f"runs/{imported}/transplant.json"))} == {"copied"}


def test_predictions_are_torchvisions(
    imported: str, theirs: torchvision.models.VGG, command: Callable[..., Result], picture: Path
) -> None:
    """The dataset's mean colour isn't torchvision's, so the border differs a little."""
    result = command("predict", imported, str(picture), "--method", "central", "--test-scales", "256", "--json")
    (found,) = json.loads(result.stdout)["images"]
    image = T.pil_to_tensor(Image.open(picture))
    view = T.center_crop(T.resize(image, [256], antialias=True), [224])
    with torch.inference_mode():
        scores = theirs(T.normalize(view / 255, list(MEAN), list(STD))[None])[0]
    best = scores.softmax(dim=0).topk(5)
    assert [guess["label"] for guess in found["top"]] == best.indices.tolist()
    assert [guess["probability"] for guess in found["top"]] == pytest.approx(best.values.tolist(), rel=2e-3)
    assert found["top"][0]["name"] == str(found["top"][0]["label"])


def test_torchvision_takes_the_export(
    imported: str, storage: Store, pictures: Dataset, command: Callable[..., Result], tmp_path: Path
) -> None:
    path = tmp_path / "vgg11.safetensors"
    result = command("export", imported, "--format", "torchvision", "-o", str(path))
    assert result.exit_code == 0, result.output
    assert result.stdout == f"{path}\n"
    assert "torchvision.models.vgg11(num_classes=10)" in result.stderr
    net = torchvision.models.vgg11(num_classes=10, init_weights=False).eval()
    net.load_state_dict(safetensors.torch.load_file(path))
    with safetensors.safe_open(path, "pt") as file:
        about = json.loads(file.metadata()["alexvgg"])
    assert about["classes"] == list(pictures.classes)
    pixels = torch.randint(0, 256, (2, 3, 224, 224), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    ours = open_trained(storage, pictures.store, imported).net
    with torch.inference_mode():
        expected = ours(pixels.float() - torch.tensor(pictures.mean_rgb)[:, None, None])
        found = net(T.normalize(T.to_dtype(pixels, torch.float32, scale=True), about["mean"], about["std"]))
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_a_deeper_net_starts_from_an_imported_one(
    imported: str, storage: Store, pictures: Dataset, theirs: torchvision.models.VGG, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = start_from(read_spec(storage, imported))
    (spec,) = plan_runs([RECIPES["vgg_b-s256"]], images_of(pictures), GEOMETRIES["paper"], start=start)
    assert spec.parent == Parent(imported, "transplant")
    monkeypatch.setattr("alexvgg.first_weights.initialise", lambda *_, **__: None)  # it takes long at this size
    net, origins = first_weights(spec, storage)
    copied = [o.layer for o in origins if o.source == "copied"]
    assert copied == ["conv1_1", "conv2_1", "conv3_1", "conv3_2", "fc6", "fc7", "fc8"]
    assert torch.equal(net.features.conv3_1.weight, theirs.features[6].weight)


def test_a_start_that_the_lineage_has_no_place_for_is_refused() -> None:
    images, start = Images("any", 10, ""), Start("imported", ModelConfig("vgg_e", 10))
    planned = plan_runs([RECIPES["vgg_e-jitter"]], images, GEOMETRIES["paper"], start=start)
    assert [(s.recipe, s.parent and s.parent.run) for s in planned] == [("vgg_e-jitter", "imported")]
    with pytest.raises(InputError, match="vgg_d-s256 can't start from imported: no run on the way there starts from"):
        plan_runs([RECIPES["vgg_d-s256"]], images, GEOMETRIES["paper"], start=start)


def test_imported_runs_are_known_by_their_file() -> None:
    images = Images("imagenet", 1000, "f")
    for source in SOURCES:
        one, other = (imported_spec(source, sha256, images) for sha256 in ("1", "2"))
        assert one.name != other.name
        assert one.recipe not in RECIPES


def _header(tensors: dict[str, list[int]]) -> bytes:
    """A safetensors file of empty tensors."""
    header = {k: {"dtype": "F32", "shape": shape, "data_offsets": [0, 0]} for k, shape in tensors.items()}
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text


@pytest.mark.parametrize(
    ("name", "data", "sentence"),
    [
        ("w.safetensors", b"nothing", "can't be read as weights"),
        ("w.pth", b"nothing", "can't be read as weights"),
        ("w.safetensors", _header({"features.0.weight": [0]}), "not the weights of torchvision's vgg11"),
    ],
)
def test_a_file_that_holds_no_such_weights(
    name: str, data: bytes, sentence: str, command: Callable[..., Result], tmp_path: Path
) -> None:
    (tmp_path / name).write_bytes(data)
    result = command("import", "torchvision:vgg11", str(tmp_path / name))
    assert result.exit_code == 2
    assert sentence in result.stderr


def test_weights_that_are_no_numbers_are_refused(
    theirs: torchvision.models.VGG, command: Callable[..., Result], tmp_path: Path
) -> None:
    state = {key: torch.tensor(math.nan).expand(value.shape) for key, value in theirs.state_dict().items()}
    torch.save(state, tmp_path / "features.pth")
    refused = command("import", "torchvision:vgg11", str(tmp_path / "features.pth"))
    assert refused.exit_code == 2
    assert "features.pth has weights that aren't numbers" in refused.stderr


def test_a_pickle_of_more_than_tensors_is_refused(command: Callable[..., Result], tmp_path: Path) -> None:
    torch.save({"state_dict": {}}, tmp_path / "checkpoint.pth")
    result = command("import", "torchvision:vgg11", str(tmp_path / "checkpoint.pth"))
    assert "holds no state dict" in result.stderr
    torch.save(torch.nn.Linear(1, 1), tmp_path / "net.pth")
    assert "can't be read as weights" in command("import", "torchvision:vgg11", str(tmp_path / "net.pth")).stderr


def test_other_classes_and_other_images_are_refused(
    imported: str, picture: Path, storage: Store, tmp_path: Path
) -> None:
    two = mixed_dataset(tmp_path, 2, classes=2).store.url
    for arguments in (["export", imported, "--format", "pt2"], ["predict", imported, str(picture)]):
        result = CliRunner().invoke(main, [*arguments, "--storage", storage.url, "--dataset", two])
        assert result.exit_code == 2
        assert "name its URL with --dataset" in result.stderr


def test_predictions_for_people(imported: str, command: Callable[..., Result], picture: Path) -> None:
    short = imported[:-3]
    lines = command("predict", short, str(picture), "--method", "central", "--top", "2").stdout.splitlines()
    assert lines[0].startswith(f"{imported}, central, Q=2")
    assert lines[1] == str(picture)
    assert len(lines) == 4
    assert lines[2].split()[1] == "%"
    mixed = command("predict", imported, __file__, str(picture), "--method", "central", "--top", "1")
    assert mixed.exit_code == 1
    assert mixed.stdout.splitlines()[1] == str(picture), "what is no image hides no other"
    assert f"{__file__} can't be decoded as JPEG, PNG or WebP" in mixed.stderr
    both = command("predict", imported, __file__, str(picture), "--json")
    assert both.exit_code == 1
    assert [set(image) for image in json.loads(both.stdout)["images"]] == [{"image", "error"}, {"image", "top"}]
