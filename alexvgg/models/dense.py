"""The fully convolutional form of a net: its head slides over the whole uncropped image (VGG section 3.2)."""

import torch.nn.functional as F
from torch import Tensor, nn

from alexvgg.config import PAPER_CROP
from alexvgg.models import Net
from alexvgg.models.vgg import STRIDE  # AlexNet's is the same


class Dense(nn.Module):
    """The same weights as `net`, with fc6 read as a (side x side) convolution and fc7, fc8 as 1x1 convolutions.

    Input (N, 3, h, w) of any size not below the crop; output (N, num_classes): the class-score map averaged over
    space, before the softmax.

    The paper's scores lie 32 pixels apart, a seventh of its crop. A net with a smaller crop is applied to shifted
    images too (as OverFeat does, Sermanet et al. 2014, section 3.3), so that its scores lie as densely: for a crop
    of 32 pixels seven shifts along each side, for 224 none.
    """

    def __init__(self, net: Net) -> None:
        super().__init__()
        self.net = net
        shifts = max(1, round(PAPER_CROP / net.crop))
        self.shifts = [n * STRIDE // shifts for n in range(shifts)]

    def forward(self, images: Tensor) -> Tensor:
        total, cells = images.new_zeros(()), 0
        for top in self.shifts:
            for left in self.shifts:
                view = images[:, :, top:, left:]
                if min(view.shape[2:]) >= self.net.crop:
                    hidden = self._hidden(view)
                    total = total + hidden.sum(dim=(0, 1))
                    cells += hidden.shape[0] * hidden.shape[1]
        return self.net.classifier.fc8(total / cells)  # type: ignore[no-any-return]  # fc8 is linear: mean before or after

    def _hidden(self, images: Tensor) -> Tensor:
        """fc7's output at every place of the head: (rows, columns, N, hidden)."""
        head = self.net.classifier
        maps = self.net.maps(images)
        places = maps.unfold(2, head.side, 1).unfold(3, head.side, 1)  # (N, channels, rows, columns, side, side)
        x = places.permute(2, 3, 0, 1, 4, 5).flatten(3)
        return F.relu(head.fc7(F.relu(head.fc6(x))))
