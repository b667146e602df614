"""Training's stream through every fault: it heals with each sample delivered once, or says shard, offset and cause."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import pytest
from faults import Answer, Drop, Fault, FaultProxy, Flip, Request, Reset, Stall, Trickle, WrongLength

from alexvgg.data import fetch, patience
from alexvgg.data.augment import Augmentation
from alexvgg.data.loader import Loader, Prefetch
from alexvgg.data.packing.sample import pack_digits
from alexvgg.data.plan import plan_epoch
from alexvgg.data.shards import Dataset, open_dataset
from alexvgg.data.store import Store, open_store
from alexvgg.data.undecodable import Undecodable
from alexvgg.errors import StoreError

AUGMENTATION = Augmentation((256, 512), 32, True, 0.1, np.eye(3))
Views = dict[int, bytes]


@dataclass
class Wire:
    """The digits directly, and through the proxy."""

    direct: Store
    dataset: Dataset
    proxy: FaultProxy


@pytest.fixture(scope="module", params=["localbucket", "swift"])
def endpoint(request: pytest.FixtureRequest) -> str:
    return str(request.getfixturevalue(request.param))


@pytest.fixture
def wire(
    endpoint: str, s3: Callable[[str], str], monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> Iterator[Wire]:
    own = "digits" if request.node.originalname == "test_it_heals_with_every_sample_once" else request.node.originalname
    direct = open_store(f"{s3(endpoint)}/{own}")
    if not direct.exists("dataset.json"):
        pack_digits(direct)
    with FaultProxy(endpoint) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", proxy.url)
        monkeypatch.setattr(patience, "LONGEST_PAUSE", 0.01)
        monkeypatch.setattr(patience, "GIVE_UP_SECONDS", 2.0)
        monkeypatch.setattr(fetch, "PATIENCE_SECONDS", 0.3)
        yield Wire(direct, open_dataset(open_store(f"s3://bucket/{own}")), proxy)


@pytest.fixture(scope="module")
def undisturbed(digits: Dataset) -> Views:
    return stream(digits)


def stream(dataset: Dataset) -> Views:
    """An epoch: each sample's pixels. Asserts that none comes twice."""
    depth = Prefetch(read_threads=4)
    loader = Loader(dataset, AUGMENTATION, 3, 0, 1, depth, Undecodable(dataset.store.url))
    seen: Views = {}
    for batch in loader.training(plan_epoch(dataset.train.shard_sizes, 64, 16, 3, 0), 0, 0):
        for row, sample in enumerate(batch.samples.tolist()):
            assert sample not in seen
            assert batch.weights[row] == 1
            seen[sample] = batch.images[row].numpy().tobytes()
    return seen


def every(n: int, fault: Fault) -> Callable[[Request], Fault | None]:
    """The fault in each n-th read of a shard."""
    return lambda request: fault if request.path.endswith(".tar") and request.number % n == 2 else None


HEALING = {
    "dropped at once": every(3, Drop(0)),
    "dropped in mid-body": every(3, Drop(1500)),
    "reset": every(4, Reset(2000)),
    "no answer": every(5, Drop(None)),
    "stalled": every(40, Stall(1.5, after=100)),
    "slow": every(40, Trickle(5000)),
    "flipped": every(4, Flip(after=600)),
    "shorter than announced": every(5, WrongLength(700)),
    "longer than announced": every(5, WrongLength(-700)),
    "slow down": lambda r: Answer(503, "SlowDown") if 5 < r.number < 40 else None,
    "internal error": lambda r: Answer(500, "InternalError") if 5 < r.number < 40 else None,
}


# The faults are the proxy's, not the service's, so the second one meets the commonest only.
ON_SWIFT = ("dropped in mid-body", "reset", "flipped", "slow down")


@pytest.mark.parametrize(
    ("endpoint", "fault"),
    [*(("localbucket", fault) for fault in HEALING), *(("swift", fault) for fault in ON_SWIFT)],
    indirect=["endpoint"],
)
def test_it_heals_with_every_sample_once(wire: Wire, undisturbed: Views, fault: str) -> None:
    wire.proxy.play(HEALING[fault])
    seen = stream(wire.dataset)
    assert wire.proxy.happened, "the fault did not take place"
    assert seen == undisturbed, "a pixel differs from undisturbed reading"


def spoil(data: bytes, dataset: Dataset, sample: int) -> bytes:
    place = int(dataset.train.offsets[sample]) + 30
    return data[:place] + bytes([data[place] ^ 4]) + data[place + 1 :]


def test_a_shard_that_is_replaced_in_mid_epoch_is_named(wire: Wire) -> None:
    dataset, shard = wire.dataset, wire.dataset.train.shards[2]
    original = wire.direct.get(shard)
    changed = spoil(original, dataset, 500)
    wire.proxy.play(lambda r: Drop(200, hook=lambda: wire.direct.put(shard, changed)) if r.number == 30 else None)
    sample = dataset.train.keys[500]
    where = f"{dataset.store.url}/{shard}"
    damaged = rf"{where} at offset {dataset.train.offsets[500]}: sample '{sample}' isn't what was indexed"
    with pytest.raises(
        StoreError,
        match=rf"({damaged})|({where} was replaced while it was being read, at byte)",
    ):
        stream(dataset)


def test_a_shard_that_was_cut_is_named(wire: Wire) -> None:
    shard = wire.dataset.train.shards[1]
    wire.direct.put(shard, wire.direct.get(shard)[:200_000])
    with pytest.raises(StoreError, match=rf"{wire.dataset.store.url}/{shard} (has|is shorter than) \d+ bytes"):
        stream(wire.dataset)


def test_a_shard_that_is_gone_is_named(wire: Wire) -> None:
    shard = wire.dataset.train.shards[1]
    wire.direct.delete(shard)
    with pytest.raises(
        StoreError, match=rf"{wire.dataset.store.url}/{shard} does not exist, though the dataset's index"
    ):
        stream(wire.dataset)


def test_a_storage_that_stays_away_is_named_after_a_while(wire: Wire) -> None:
    wire.proxy.play(lambda r: Answer(503, "SlowDown") if r.number > 20 else None)
    with pytest.raises(StoreError, match=r"reading train-\d+.tar at byte \d+: .*SlowDown.* gave up after \d+ tries"):
        stream(wire.dataset)


def test_credentials_that_were_renewed_meanwhile_are_read_again(
    wire: Wire, undisturbed: Views, monkeypatch: pytest.MonkeyPatch
) -> None:
    expired = Answer(403, "ExpiredToken", hook=lambda: monkeypatch.setenv("AWS_SESSION_TOKEN", "renewed"))
    wire.proxy.play(lambda r: expired if r.number > 20 and "x-amz-security-token" not in r.headers else None)
    assert stream(wire.dataset) == undisturbed
    assert wire.proxy.happened


def test_credentials_that_stay_expired_are_an_error_at_once(wire: Wire) -> None:
    wire.proxy.play(lambda r: Answer(403, "ExpiredToken") if r.number > 20 else None)
    with pytest.raises(
        StoreError, match=r"reading train-\d+.tar at byte \d+: ExpiredToken: .*Renew the AWS credentials"
    ):
        stream(wire.dataset)
