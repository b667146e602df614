"""Packing an ImageFolder against copying the same bytes, to a folder and to an S3 service on this machine.

The alternative is what one would do without us: shutil.copyfile or boto3's managed upload of every image, with as many
threads. Beside it the upload of the finished tars, which no packing can outdo. All read the same images from the page
cache and run in turn. The folder is on this machine's disk; the S3 service and the shards on their way to it are in
memory, so that its disk, which no real service shares with us, isn't what is measured.
"""

import io
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import boto3
import numpy as np
from boto3.s3.transfer import TransferConfig
from botocore.config import Config
from PIL import Image
from processes import s3_environment, s3_service
from report import report

from alexvgg.data.packing.pack import PackOptions, pack
from alexvgg.data.packing.source import open_source
from alexvgg.data.store import create_bucket, open_store
from alexvgg.data.upload import PART

ROUNDS = 7
MEMORY = "/dev/shm" if Path("/dev/shm").is_dir() else None
IMAGES, CLASSES = 2400, 40
THREADS = os.cpu_count() or 1
SHARD_BYTES = 16 << 20  # so that there are several for each thread, as there are of ImageNet
# Colours are measured on 20,000 images whatever the number packed: the same share as of ImageNet's 1,281,167.
OPTIONS = PackOptions(shard_bytes=SHARD_BYTES, colour_images=round(IMAGES * 20_000 / 1_281_167))


def make_images(folder: Path) -> int:
    """Files as large as ImageNet's, 110 KB on average; every one is a JPEG with something after its end."""
    random = np.random.default_rng(0)
    noise = Image.fromarray(random.integers(0, 256, (375, 500, 3), np.uint8).astype(np.uint8))
    jpeg = io.BytesIO()
    noise.resize((250, 188)).resize((500, 375)).save(jpeg, "JPEG", quality=75)
    total = 0
    for split, images in (("train", IMAGES), ("val", 2 * CLASSES)):
        for i in range(images):
            path = folder / split / f"c{i % CLASSES:03d}" / f"{split}_{i:06d}.JPEG"
            path.parent.mkdir(parents=True, exist_ok=True)
            rest = max(0, round(random.lognormal(11.5, 0.45)) - jpeg.tell())
            total += path.write_bytes(jpeg.getvalue() + random.bytes(rest))
    return total


def copy(source: Path, target: Path) -> None:
    files = [p for p in source.rglob("*") if p.is_file()]
    for folder in {p.parent for p in files}:
        (target / folder.relative_to(source)).mkdir(parents=True)
    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(lambda p: shutil.copyfile(p, target / p.relative_to(source)), files))


def upload(client: Any, files: list[Path], prefix: str) -> None:
    """In parts of our store's size: boto3's own, 8 MiB, is slower."""
    parts = TransferConfig(multipart_threshold=PART, multipart_chunksize=PART)
    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(lambda p: client.upload_file(str(p), "bench", f"{prefix}/{p.name}", Config=parts), files))


def pack_to(source: Path, url: str) -> None:
    pack(open_source(source, THREADS), open_store(url), OPTIONS, THREADS, lambda _: None)


def timed(work: Callable[[], None], clean: Callable[[], None]) -> float:
    began = time.perf_counter()
    work()
    seconds = time.perf_counter() - began
    clean()
    return seconds


def empty(url: str) -> None:
    store = open_store(url)
    for key in store.list(""):
        store.delete(key)


def main() -> None:
    with tempfile.TemporaryDirectory() as root, tempfile.TemporaryDirectory(dir=MEMORY) as memory:
        source, target, packed = Path(root) / "src", Path(root) / "out", Path(memory) / "packed"
        megabytes = make_images(source) / 1e6
        print(f"{IMAGES} images, {megabytes:.0f} MB, {THREADS} threads")

        def clean() -> None:
            shutil.rmtree(target)

        def to_folder() -> None:
            pack_to(source, target.as_uri())

        copy(source, target)  # these two warm everything up
        clean()
        pack_to(source, packed.as_uri())
        pairs = [(timed(to_folder, clean), timed(lambda: copy(source, target), clean)) for _ in range(ROUNDS)]
        show("pack-file", pairs, megabytes, ("data pack to file://", "shutil.copyfile of the images"))

        tempfile.tempdir = memory
        tars, images = sorted(packed.glob("*.tar")), [p for p in source.rglob("*") if p.is_file()]
        ours, raw = "s3://bench/ours", "s3://bench/raw"
        # With the settings that our store uses: by default boto3 adds checksums, which is slower.
        settings = Config(request_checksum_calculation="when_required", s3={"addressing_style": "path"})
        with s3_service(Path(memory) / "s3") as endpoint:
            os.environ |= s3_environment(endpoint)
            create_bucket("s3://bench")
            client = boto3.client("s3", config=settings)
            pack_to(source, ours)
            empty(ours)
            rounds = [
                (timed(lambda: pack_to(source, ours), lambda: empty(ours)),
                 timed(lambda: upload(client, images, "raw"), lambda: empty(raw)),
                 timed(lambda: upload(client, tars, "raw"), lambda: empty(raw)))
                for _ in range(ROUNDS)
            ]  # fmt: skip
        show("pack-tars", [(r[0], r[2]) for r in rounds], megabytes, ("data pack to s3://", "boto3 upload of the tars"))
        show("pack", [r[:2] for r in rounds], megabytes, ("data pack to s3://", "boto3 upload of the images"))


def show(bench: str, pairs: list[tuple[float, float]], megabytes: float, names: tuple[str, str]) -> None:
    ours, baseline = ([1000 * pair[i] / megabytes for pair in pairs] for i in (0, 1))
    report(bench, ours, baseline, "s/GB", names)


main()
