"""The fully convolutional form of a net: its head slides over the whole uncropped image (VGG section 3.2)."""

import torch.nn.functional as F
from torch import Tensor, nn

from alexvgg.models import Net


class Dense(nn.Module):
    """The same weights as `net`, with fc6 read as a (side x side) convolution and fc7, fc8 as 1x1 convolutions.

    Input (N, 3, h, w) of any size not below the crop; output (N, num_classes): the class-score map averaged over
    space, before the softmax.
    """

    def __init__(self, net: Net) -> None:
        super().__init__()
        self.net = net

    def forward(self, images: Tensor) -> Tensor:
        head = self.net.classifier
        x = self.net.maps(images)
        fc6 = head.fc6.weight.view(head.fc6.out_features, x.shape[1], head.side, head.side)
        x = F.relu(F.conv2d(x, fc6, head.fc6.bias))
        x = F.relu(F.conv2d(x, head.fc7.weight[:, :, None, None], head.fc7.bias))
        return F.conv2d(x, head.fc8.weight[:, :, None, None], head.fc8.bias).mean(dim=(2, 3))
