"""Each validation image once, on any number of ranks, in the shape that is scored."""

import pytest

from alexvgg.data.shards import Dataset
from alexvgg.data.undecodable import Undecodable
from alexvgg.data.validation import Validation


def validation(dataset: Dataset, rank: int = 0, world: int = 1) -> Validation:
    return Validation(dataset, rank, world, 2, Undecodable(dataset.store.url))


@pytest.mark.parametrize("world", [1, 3, 4, 7])
def test_validation_shows_each_image_once(digits: Dataset, world: int) -> None:
    shares = [validation(digits, rank, world) for rank in range(world)]
    for batches in ([s.central(384, 32) for s in shares], [s.whole(55) for s in shares]):
        assert sorted(i for share in batches for b in share for i in b.samples.tolist()) == list(range(360))


def test_whole_images_keep_their_shape(digits: Dataset) -> None:
    assert {tuple(b.images.shape[1:]) for b in validation(digits).whole(55)} == {(3, 55, 55)}
