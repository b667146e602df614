"""The layers that both papers share: the paper's LRN, the fully connected head, and dropout with keyed masks."""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from alexvgg.architectures import Linear


class LocalResponseNorm(nn.Module):
    """AlexNet's b = a / (k + alpha * sum a^2)^beta with k=2, n=5, alpha=1e-4, beta=0.75 (section 3.3).

    VGG uses the same parameters (section 2.1). The sum over five neighbouring channels is a 1x1 convolution with a band
    of ones: on a CPU the whole is 2.5 to 3.5 times as fast, forward and backward, as PyTorch's, which pools in 3-d.
    (PyTorch's also divides alpha by n: the paper's is its alpha=5e-4.)
    """

    k, n, alpha, beta = 2.0, 5, 1e-4, 0.75

    def forward(self, a: Tensor) -> Tensor:
        with torch.autocast(a.device.type, enabled=False):  # near k, bf16 has steps of 1/64
            x = a.to(torch.promote_types(a.dtype, torch.float32))
            channel = torch.arange(x.shape[1], device=x.device)
            band = ((channel[:, None] - channel).abs() <= self.n // 2).to(x.dtype) * self.alpha
            return (x * (self.k + F.conv2d(x * x, band[:, :, None, None])).pow(-self.beta)).to(a.dtype)


class Head(nn.Module):
    """Fully connected layers over flattened (channels, side, side) maps; the last gives the class scores.

    Each but the last is followed by a ReLU and dropout. Dropout masks depend only on the samples' keys, so a global
    batch sees the same masks on any number of workers and in a resumed run.
    """

    def __init__(self, linears: Sequence[Linear], side: int, dropout: float) -> None:
        super().__init__()
        self.side, self.dropout = side, dropout
        for name, inputs, outputs in linears:
            self.add_module(name, nn.Linear(inputs, outputs))

    def forward(self, x: Tensor, keys: Tensor | None = None) -> Tensor:
        """x (N, features), keys int64 (N,), required in training mode with dropout; returns (N, num_classes)."""
        *hidden, scores = self.children()
        for stream, linear in enumerate(hidden):
            x = F.relu(linear(x))
            if self.training and self.dropout > 0:
                assert keys is not None, "training needs one key per sample for dropout"
                x = x * keyed_mask(keys, x.shape[1], self.dropout, stream=stream).to(x.dtype)
        return scores(x)  # type: ignore[no-any-return]

    def score_map(self, maps: Tensor) -> Tensor:
        """Class scores (N, classes, rows, columns) of the head at every position of larger maps (N, channels, h, w)."""
        return _at_every_position(self, maps, self.side)


def _at_every_position(head: Callable[[Tensor], Tensor], maps: Tensor, side: int) -> Tensor:
    """A fully connected head read as a convolution over (side x side) windows (VGG section 3.2).

    As one matrix product over all windows: PyTorch's convolution with so large a kernel takes up to 1.4 times as long.
    """
    windows = maps.unfold(2, side, 1).unfold(3, side, 1)  # (N, channels, rows, columns, side, side)
    n, _, rows, columns = windows.shape[:4]
    scores = head(windows.permute(0, 2, 3, 1, 4, 5).reshape(n * rows * columns, -1))
    return scores.view(n, rows, columns, -1).permute(0, 3, 1, 2)


_GAMMA, _MIX1, _MIX2 = -7046029254386353131, -4658895280553007687, -7723592293110705685


# An operator of its own: Inductor takes this for index arithmetic, and fails; `torch.compiler.disable` would cost every
# process that builds a net seconds, as it imports the compiler.
@torch.library.custom_op("alexvgg::keyed_mask", mutates_args=())
def keyed_mask(keys: Tensor, width: int, p: float, *, stream: int) -> Tensor:
    """Dropout multipliers (N, width), 0 with probability `p`, else 1 / (1 - p): a pure function of its arguments.

    Counter-based SplitMix64 (Steele, Lea & Flood 2014) on int64, whose overflow wraps on CPU and CUDA alike.
    """
    counter = torch.arange(1, width + 1, device=keys.device) + stream * (1 << 32)
    z = keys[:, None] + counter * _GAMMA
    z = (z ^ _shift_right(z, 30)) * _MIX1
    z = (z ^ _shift_right(z, 27)) * _MIX2
    z = z ^ _shift_right(z, 31)
    keep = _shift_right(z, 11) >= int(p * (1 << 53))  # the top 53 bits as a uniform number in [0; 1)
    return keep / (1 - p)


@keyed_mask.register_fake
def _(keys: Tensor, width: int, p: float, *, stream: int) -> Tensor:
    return keys.new_empty((len(keys), width), dtype=torch.float32)


def _shift_right(z: Tensor, bits: int) -> Tensor:
    # int64's own >> copies the sign bit; the generator is defined on unsigned numbers.
    return (z >> bits) & ((1 << (64 - bits)) - 1)
