"""When a service is asked again, for how long, and what is no use. Real services and networks: test_store.py."""

from collections.abc import Callable
from http.client import IncompleteRead
from types import SimpleNamespace
from typing import Any

import pytest
from botocore.exceptions import (
    ClientError,
    CredentialRetrievalError,
    EndpointConnectionError,
    ReadTimeoutError,
)

from alexvgg.data import patience
from alexvgg.data.patience import LONGEST_PAUSE, Patience, WrongLengthError, attempt
from alexvgg.data.store import MissingKeyError
from alexvgg.errors import StoreError


class Service:
    """Counts what is done when it must be asked again."""

    url = "s3://bucket"

    def __init__(self) -> None:
        self.renewed = self.retried = 0

    def request(self, operation: str, key: str, **more: Any) -> Any: ...

    def renew(self) -> None:
        self.renewed += 1

    def count_retry(self) -> None:
        self.retried += 1


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The seconds of each pause; they pass at once."""
    slept: list[float] = []
    clock = SimpleNamespace(monotonic=lambda: 1.0 + sum(slept), sleep=slept.append)
    monkeypatch.setattr(patience, "time", clock)
    return slept


def answer(status: int, code: str) -> ClientError:
    return ClientError(
        {"Error": {"Code": code, "Message": "no"}, "ResponseMetadata": {"HTTPStatusCode": status}},  # type: ignore[typeddict-item]
        "GetObject",
    )


def after(error: Exception, then: Callable[[], None] = lambda: None) -> Callable[[], str]:
    """Fails once."""
    errors = [error]

    def act() -> str:
        if errors:
            raise errors.pop()
        then()
        return "done"

    return act


def test_pauses_double_up_to_a_limit_and_are_cut_by_chance(pauses: list[float]) -> None:
    service = Service()
    asked = Patience(service, "reading", 1000.0)
    for _ in range(10):
        asked.after(ConnectionResetError())
    asked.progress()
    asked.after(ConnectionResetError())
    whole = [*(min(0.1 * 2**n, LONGEST_PAUSE) for n in range(10)), 0.1]
    assert all(0.5 * most <= pause <= most for pause, most in zip(pauses, whole, strict=True))
    assert len({pause / most for pause, most in zip(pauses, whole, strict=True)}) > 5
    assert service.retried == 11


def test_it_ends_when_nothing_arrives_for_so_long_and_begins_anew_when_something_does(pauses: list[float]) -> None:
    asked = Patience(Service(), "reading data", 60.0)
    for parts in range(1, 6):
        while sum(pauses) < 50 * parts:
            asked.after(ConnectionResetError())
        asked.progress()
    began = sum(pauses)
    while sum(pauses) <= began + 60:
        asked.after(ConnectionResetError())
    with pytest.raises(
        StoreError, match=r"reading data at byte 7: reset; gave up after \d+ tries, the last 60 s without"
    ):
        asked.after(ConnectionResetError("reset"), " at byte 7")
    assert 60 < sum(pauses) - began <= 60 + LONGEST_PAUSE


@pytest.mark.parametrize(
    "error",
    [
        answer(500, "InternalError"),
        answer(503, "SlowDown"),
        answer(429, "429"),
        answer(400, "RequestTimeout"),
        answer(403, "RequestTimeTooSkewed"),
        answer(409, "ConditionalRequestConflict"),
        answer(409, "OperationAborted"),
    ],
    ids=str,
)
def test_what_passes_is_asked_again(pauses: list[float], error: ClientError) -> None:
    service = Service()
    assert attempt(service, "reading", after(error)) == "done"
    assert (service.retried, len(pauses)) == (1, 1)


@pytest.mark.parametrize(
    "error",
    [
        ReadTimeoutError(endpoint_url="http://x"),
        EndpointConnectionError(endpoint_url="http://x"),
        CredentialRetrievalError(provider="x", error_msg="y"),
        IncompleteRead(b""),
        ConnectionResetError(),
        WrongLengthError(),
    ],
    ids=lambda error: type(error).__name__,
)
def test_what_networks_do_is_outlived(pauses: list[float], error: Exception) -> None:
    assert attempt(Service(), "reading", after(error)) == "done"
    assert len(pauses) == 1


@pytest.mark.parametrize(
    ("error", "kind", "told"),
    [
        (answer(404, "NoSuchKey"), MissingKeyError, "does not exist"),
        (answer(404, "404"), MissingKeyError, "does not exist"),
        (answer(403, "AccessDenied"), StoreError, "Renew the AWS credentials"),
        (answer(403, "403"), StoreError, "Renew the AWS credentials"),
        (answer(400, "InvalidArgument"), StoreError, "InvalidArgument"),
        (answer(501, "NotImplemented"), StoreError, "NotImplemented"),
        (ValueError("a bug"), ValueError, "a bug"),
    ],
)
def test_what_no_trying_mends_is_an_error_at_once(
    pauses: list[float], error: Exception, kind: type[Exception], told: str
) -> None:
    with pytest.raises(kind, match=told):
        attempt(Service(), "reading", after(error))
    assert pauses == []


def test_credentials_are_renewed_once_until_something_arrives(pauses: list[float]) -> None:
    service, expired = Service(), answer(400, "ExpiredToken")
    asked = Patience(service, "reading")
    asked.after(expired)
    asked.progress()
    asked.after(expired)
    assert (service.renewed, service.retried, pauses) == (2, 2, [])
    with pytest.raises(StoreError, match="ExpiredToken"):
        asked.after(expired)


def test_an_attempt_has_a_patience_of_its_own(pauses: list[float]) -> None:
    def act() -> None:
        raise ConnectionResetError

    with pytest.raises(StoreError, match="the last 10 s"):
        attempt(Service(), "looking", act, 10.0)
    assert sum(pauses) < 10 + LONGEST_PAUSE
