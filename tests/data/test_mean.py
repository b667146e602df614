"""What is subtracted: the same part of the mean image at every crop."""

import hashlib
import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from smalldata import pack

from alexvgg.data.mean import mean_of
from alexvgg.data.shards import Dataset, open_dataset
from alexvgg.data.store import open_store
from alexvgg.errors import InputError


def test_the_digits_mean_image_is_the_mean_of_what_training_sees_at_256(digits: Dataset) -> None:
    from sklearn.datasets import load_digits

    image = digits.mean_image()
    assert image.shape == (3, 256, 256)
    np.testing.assert_allclose(image.mean(axis=(1, 2)), digits.mean_rgb, atol=1)
    scans = np.rint(load_digits().data.reshape(-1, 8, 8) * (255 / 16)).astype(np.uint8)
    enlarged = [
        np.asarray(Image.fromarray(s).resize((256, 256), Image.Resampling.BILINEAR), float) for s in scans[:200]
    ]
    assert np.abs(np.mean(enlarged, axis=0) - image[0]).mean() < 6, "of some of them, about the mean of all"


def test_a_crop_meets_the_centre_of_the_mean_image(digits: Dataset) -> None:
    image = torch.from_numpy(digits.mean_image())
    assert torch.equal(mean_of(digits, "image", 224), image[:, 16:240, 16:240])
    small = mean_of(digits, "image", 32)
    assert small.shape == (3, 32, 32)
    sevens = image[:, 16:240, 16:240].unflatten(1, (32, 7)).unflatten(3, (32, 7)).mean(dim=(2, 4))
    assert (small - sevens).abs().mean() < 1, "seven pixels become one"
    assert mean_of(digits, "rgb", 32).tolist() == pytest.approx(digits.mean_rgb)


def test_a_dataset_without_its_mean_image_says_what_to_do(
    tmp_path_factory: pytest.TempPathFactory, digits: Dataset
) -> None:
    store = open_store(tmp_path_factory.mktemp("old").as_uri())
    for key in digits.store.list(""):
        if key != "mean.npy":
            store.put(key, digits.store.get(key))
    old = open_dataset(store)
    assert old.fingerprint == digits.fingerprint
    assert mean_of(old, "rgb", 32).shape == (3,)
    with pytest.raises(InputError, match=r"has no mean image.*--set data\.mean=rgb"):
        mean_of(old, "image", 32)
    store.put("mean.npy", digits.store.get("mean.npy")[:-1] + b"x")
    with pytest.raises(InputError, match=r"mean\.npy isn't the dataset's"):
        mean_of(old, "image", 32)


class Attack:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (print, ("code ran",))


def test_a_pickle_in_the_place_of_the_mean_image_is_not_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store, file = pack(open_store(tmp_path.as_uri())), io.BytesIO()
    np.save(file, np.array([Attack()], dtype=object), allow_pickle=True)
    store.put("mean.npy", file.getvalue())
    dataset = replace(open_dataset(store), mean_sha256=hashlib.sha256(file.getvalue()).hexdigest())
    with pytest.raises(InputError, match=r"mean\.npy: .*allow_pickle=False"):
        dataset.mean_image()
    assert "code ran" not in capsys.readouterr().out
