"""VGG A, B, D and E against torchvision's nets with the same weights."""

import pytest
import torch
import torch.nn.functional as F
import torchvision

from alexvgg.errors import InputError
from alexvgg.models import build
from alexvgg.models.dense import Dense
from alexvgg.models.torchvision_weights import TWINS, from_torchvision


@pytest.mark.parametrize("name", TWINS)
def test_the_same_weights_give_the_same_logits(name: str) -> None:
    torch.manual_seed(0)
    theirs = torchvision.models.get_model(TWINS[name], weights=None).eval()
    ours = build(name).eval()
    ours.load_state_dict(from_torchvision(name, theirs.state_dict(), ours.state_dict()))
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


def test_other_nets_and_widths_are_refused() -> None:
    state = torchvision.models.vgg11(weights=None, num_classes=10).state_dict()
    with pytest.raises(InputError, match="no twin of vgg_c"):
        from_torchvision("vgg_c", state, build("vgg_c").state_dict())
    with pytest.raises(InputError, match="not the weights of torchvision's vgg11"):
        from_torchvision("vgg_a", state, build("vgg_a", width=0.5).state_dict())
