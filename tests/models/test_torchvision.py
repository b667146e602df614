"""VGG A, B, D and E against torchvision's nets with the same weights."""

import pytest
import torch
import torch.nn.functional as F
import torchvision

from alexvgg.config import ModelConfig
from alexvgg.errors import InputError
from alexvgg.models import build
from alexvgg.models.dense import Dense
from alexvgg.models.torchvision_weights import (
    MEAN,
    STD,
    TWINS,
    check_twin,
    from_torchvision,
    take_pixels,
    to_torchvision,
)


@pytest.mark.parametrize("name", TWINS)
def test_the_same_weights_give_the_same_logits(name: str) -> None:
    torch.manual_seed(0)
    theirs = torchvision.models.get_model(TWINS[name], weights=None, init_weights=False).eval()
    with torch.device("meta"):
        ours = build(name).eval()
    state = from_torchvision(name, theirs.state_dict())
    ours.load_state_dict(state, assign=True)
    back = to_torchvision(name, state)
    assert list(back) == list(theirs.state_dict())
    assert all(torch.equal(tensor, back[key]) for key, tensor in theirs.state_dict().items())
    images = torch.randn(1, 3, 224, 224)
    wide = torch.randn(1, 3, 288, 256)
    with torch.inference_mode():
        torch.testing.assert_close(ours(images), theirs(images))
        if name != "vgg_a":
            return
        # Dense, built from torchvision's layers: FC weights as convolutions over the map that its features give.
        fc6, fc7, fc8 = (m for m in theirs.classifier if isinstance(m, torch.nn.Linear))
        x = F.relu(F.conv2d(theirs.features(wide), fc6.weight.view(4096, 512, 7, 7), fc6.bias))
        x = F.relu(F.conv2d(x, fc7.weight.view(4096, 4096, 1, 1), fc7.bias))
        scores = F.conv2d(x, fc8.weight.view(1000, 4096, 1, 1), fc8.bias)
        assert scores.shape[2:] == (3, 2)
        torch.testing.assert_close(Dense(ours)(wide), scores.mean(dim=(2, 3)))


@pytest.mark.parametrize("mean_rgb", [[255 * m for m in MEAN], [120.0, 121.0, 98.0]])
def test_the_first_layer_takes_pixels_minus_the_mean(mean_rgb: list[float]) -> None:
    """Exactly, for torchvision's mean colour; for another but at the border, where padding has the other colour."""
    torch.manual_seed(0)
    theirs = torchvision.models.vgg11(weights=None, num_classes=2).features[0]
    state = {f"features.conv1_1.{k}": v for k, v in theirs.state_dict().items()}
    ours = torch.nn.Conv2d(3, 64, 3, padding=1)
    taken = take_pixels(state, mean_rgb)
    ours.load_state_dict({k.rpartition(".")[2]: v for k, v in taken.items()})
    pixels = torch.randint(0, 256, (2, 3, 32, 32)).float()
    columns = (torch.tensor(v).view(1, 3, 1, 1) for v in (MEAN, STD, mean_rgb))
    mean, std, own = columns
    with torch.inference_mode():
        expected, found = theirs((pixels / 255 - mean) / std), ours(pixels - own)
    inside = (..., slice(1, -1), slice(1, -1))
    torch.testing.assert_close(found[inside], expected[inside], rtol=1e-4, atol=1e-5)
    same = mean_rgb[0] == 255 * MEAN[0]
    assert torch.allclose(found, expected, rtol=1e-4, atol=1e-5) == same


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        (ModelConfig("vgg_c", 10), "C has 1x1 ones"),
        (ModelConfig("vgg_a_lrn", 10), "no local response normalisation"),
        (ModelConfig("vgg_b_shallow", 10), "3x3 convolutions only"),
        (ModelConfig("alexnet", 10), "a later net"),
        (ModelConfig("alexnet_half", 10), "it has those of vgg_a, vgg_b, vgg_d, vgg_e only"),
        (ModelConfig("vgg_a", 10, width=0.5), "can't hold a net of width 0.5 for crops of 224 pixels"),
        (ModelConfig("vgg_a", 10, crop=448), "can't hold a net of width 1 for crops of 448 pixels"),
    ],
)
def test_what_has_no_twin_is_refused_with_the_reason(model: ModelConfig, reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        check_twin(model)


def test_another_nets_weights_are_refused() -> None:
    with torch.device("meta"):
        state = torchvision.models.vgg13(weights=None, num_classes=10).state_dict()
    with pytest.raises(InputError, match=r"vgg11: the file has no f.*, and the net has no f.*\. Name the net"):
        from_torchvision("vgg_a", state)
