"""Decoders for JPEGs: milliseconds for one image from bytes to a 224x224 training view, at three scales.

Each decodes the whole image; then the same crop is resized, by our resampler and by Pillow's. The JSON's ratio is
Pillow all the way against what `alexvgg.data` does, for S in [256; 512]. OpenCV and imagecodecs take part if they are
installed. `make bench NAME=decode`
"""

import io
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median

import numpy as np
import simplejpeg
import torch
import torchvision
from PIL import Image
from report import result

from alexvgg.data.decode import Pixels, decode
from alexvgg.data.fetch import read_all
from alexvgg.data.keyed import sample_keys, uniforms
from alexvgg.data.packing.synthetic import SyntheticSpec, pack_synthetic
from alexvgg.data.shards import open_dataset
from alexvgg.data.store import open_store
from alexvgg.data.views import RESAMPLE, crop_bottom, random_crop

IMAGES, SIDE, ROUNDS = 300, 224, 5
SCALES: dict[str, tuple[int, int]] = {"256": (256, 256), "384": (384, 384), "[256;512]": (256, 512)}


def by_pillow(data: bytes) -> Pixels:
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


def by_torchvision(data: bytes) -> Pixels:
    encoded = torch.frombuffer(bytearray(data), dtype=torch.uint8)
    planes = torchvision.io.decode_jpeg(encoded, mode=torchvision.io.ImageReadMode.RGB)
    return np.ascontiguousarray(planes.permute(1, 2, 0))


def decoders() -> dict[str, Callable[[bytes], Pixels]]:
    found: dict[str, Callable[[bytes], Pixels]] = {
        "ours (simplejpeg, then Pillow)": decode, "simplejpeg": lambda d: simplejpeg.decode_jpeg(d, "RGB"),
        "simplejpeg, fast DCT and upsampling": lambda d: simplejpeg.decode_jpeg(
            d, "RGB", fastdct=True, fastupsample=True
        ),
        "torchvision": by_torchvision, "Pillow": by_pillow,
    }  # fmt: skip
    try:
        import cv2

        found["OpenCV"] = lambda d: cv2.imdecode(np.frombuffer(d, np.uint8), cv2.IMREAD_COLOR_RGB)
    except ImportError:
        print("OpenCV isn't installed")
    try:
        import imagecodecs

        found["imagecodecs"] = imagecodecs.jpeg8_decode
    except ImportError:
        print("imagecodecs isn't installed")
    return found


def pillow_crop(image: Pixels, shorter: int, right: float, down: float) -> Pixels:
    height, width, _ = image.shape
    part = SIDE * min(width, height) / shorter
    x, y = (share * (length - part) for share, length in ((right, width), (down, height)))
    box = (x, y, min(x + part, width), min(y + part, height))
    return np.asarray(Image.fromarray(image).resize((SIDE, SIDE), RESAMPLE, box=box))


def milliseconds(work: Callable[[int], object], n: int) -> float:
    began = time.perf_counter()
    for i in range(n):
        work(i)
    return 1e3 * (time.perf_counter() - began) / n


def main() -> None:
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        store = open_store(Path(folder).as_uri())
        pack_synthetic(store, SyntheticSpec(images=IMAGES, val=1))
        dataset = open_dataset(store)
        every = read_all(store, dataset.train, range(IMAGES)).values()
    images = [d for d in every if d[:2] == b"\xff\xd8" and simplejpeg.decode_jpeg_header(d)[2] != "CMYK"]
    n = len(images)
    reference = [by_pillow(d).astype(int) for d in images]
    names = decoders()
    for name, decoder in names.items():

        def alone(i: int, decoder: Callable[[bytes], Pixels] = decoder) -> object:
            return decoder(images[i])

        times = [milliseconds(alone, n) for _ in range(ROUNDS)]
        off = np.mean([np.abs(decoder(d) - r).mean() for d, r in zip(images, reference, strict=True)])
        print(f"decode   {name:<38} {median(times):7.3f} ms   {off:6.3f}/255 from Pillow")
    draws = uniforms(sample_keys(0, 0, np.arange(n)), 3)
    results: dict[str, list[float]] = {}
    for scale, (low, high) in SCALES.items():
        shorter = (low + draws[0] * (high - low)).astype(int)

        def ours(i: int, s: np.ndarray = shorter) -> object:
            bottom = partial(crop_bottom, shorter=int(s[i]), side=SIDE, down=draws[2, i])
            return random_crop(decode(images[i], bottom), int(s[i]), SIDE, draws[1, i], draws[2, i])

        def half(i: int, s: np.ndarray = shorter) -> object:
            return pillow_crop(decode(images[i]), int(s[i]), draws[1, i], draws[2, i])

        def pillow(i: int, s: np.ndarray = shorter) -> object:
            return pillow_crop(by_pillow(images[i]), int(s[i]), draws[1, i], draws[2, i])

        rounds = [[milliseconds(way, n) for way in (ours, half, pillow)] for _ in range(ROUNDS)]
        results[scale] = [median(r[k] for r in rounds) for k in range(3)]
        print(
            f"view     S={scale:<10} ours {results[scale][0]:7.3f} ms   ours with Pillow's resize "
            f"{results[scale][1]:7.3f} ms   all Pillow {results[scale][2]:7.3f} ms"
        )
    ours_ms, _, pillow_ms = results["[256;512]"]
    result("decode", ours=ours_ms, baseline=pillow_ms, unit="ms", ratio=pillow_ms / ours_ms, n=ROUNDS)


if __name__ == "__main__":
    main()
