"""A safetensors file in memory whose tensors are views of it: filling them is all there is to a snapshot."""

import json
from collections.abc import Mapping
from typing import cast

import torch
from torch import Tensor

DTYPES = {torch.float32: "F32", torch.float64: "F64", torch.bfloat16: "BF16", torch.int64: "I64"}
ALIGNMENT = 8


class TensorFile:
    """The file that `safetensors.torch.save` would write of tensors like these, laid out once and filled many times.

    The format: eight bytes with the header's length, the header as JSON, the tensors' bytes one after the other.
    """

    def __init__(self, like: Mapping[str, Tensor]) -> None:
        entries, end = {}, 0
        for name, tensor in like.items():
            start, end = end, end + tensor.numel() * tensor.element_size()
            entries[name] = {
                "dtype": DTYPES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [start, end],
            }  # fmt: skip
        header = json.dumps(entries, separators=(",", ":")).encode()
        header += b" " * (-len(header) % ALIGNMENT)
        self._bytes = bytearray(8 + len(header) + end)
        self._bytes[: 8 + len(header)] = len(header).to_bytes(8, "little") + header
        self.tensors = {}
        for name, tensor in like.items():
            offset = 8 + len(header) + cast(list[int], entries[name]["data_offsets"])[0]
            view = torch.frombuffer(self._bytes, dtype=tensor.dtype, count=tensor.numel(), offset=offset)
            self.tensors[name] = view.view(tensor.shape)

    @property
    def data(self) -> bytes:
        """The file, not copied: it changes with the next `fill`. (A bytearray, which every store writes as bytes.)"""
        return cast(bytes, self._bytes)

    def fill(self, tensors: Mapping[str, Tensor]) -> None:
        """Copy the values of `tensors`, from any device and in any memory layout."""
        for name, view in self.tensors.items():
            view.copy_(tensors[name])
