"""The fully convolutional form of a net: its head slides over the whole uncropped image (VGG section 3.2)."""

from torch import Tensor, nn

from alexvgg.config import PAPER_CROP
from alexvgg.models import Net


class Dense(nn.Module):
    """The same weights as `net`, with fc6 read as a (side x side) convolution and fc7, fc8 as 1x1 convolutions.

    Input (N, 3, h, w) of any size not below the crop; output (N, num_classes): the class-score map averaged over
    space, before the softmax. Every score is that of a whole crop: pixels at the right and bottom that would begin
    another one aren't scored (at most 31; the flip shows them on the other side). The paper doesn't say what becomes of
    them; Caffe's pools round up, and would score them with what lies beyond the image left out.

    The paper's scores lie 32 pixels apart, a seventh of its crop. A net with a smaller crop is applied to shifted
    images too (as OverFeat does, Sermanet et al. 2014, section 3.3), so that its scores lie as densely: for a crop
    of 32 pixels seven shifts along each side, for 224 none.
    """

    def __init__(self, net: Net) -> None:
        super().__init__()
        self.net = net
        shifts = max(1, round(PAPER_CROP / net.crop))
        self.shifts = [n * net.stride // shifts for n in range(shifts)]

    def forward(self, images: Tensor) -> Tensor:
        total, cells = images.new_zeros(()), 0
        for top in self.shifts:
            for left in self.shifts:
                view = images[:, :, top:, left:]
                if min(view.shape[2:]) >= self.net.crop:
                    scores = self.net.classifier.score_map(self.net.maps(view))
                    total = total + scores.sum(dim=(2, 3))
                    cells += scores.shape[2] * scores.shape[3]
        return total / cells
