"""When to ask an S3 service again, by one rule for everything that is asked of it."""

import random
import time
from collections.abc import Callable
from typing import Any, Protocol, TypeVar

from alexvgg.data.store import MissingKeyError
from alexvgg.errors import StoreError

GIVE_UP_SECONDS = 120.0  # without a single new byte
LONGEST_PAUSE = 5.0  # seconds between two tries
_jitter = random.Random()  # of its own: threads that wait don't disturb what a program draws

T = TypeVar("T")

EXPIRED = ("ExpiredToken", "ExpiredTokenException", "RequestExpired", "TokenRefreshRequired")
REFUSED = ("AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch", "403", *EXPIRED)
PASSING = (
    "SlowDown",
    "RequestTimeout",
    "RequestTimeTooSkewed",
    "ConditionalRequestConflict",
    "OperationAborted",
    "429",
)
NOT_IMPLEMENTED = 501  # the one server error that no patience mends


class Service(Protocol):
    """A service under its URL, and what is done when it must be asked again."""

    url: str

    def request(self, operation: str, key: str, **more: Any) -> Any:
        """boto3's answer to one request about an object."""

    def renew(self) -> None:
        """Read the credentials again."""

    def count_retry(self) -> None: ...


class Patience:
    """Decides, error after error, whether to try again: as long as something arrives every `seconds`.

    Pauses double from 0.1 s, each cut by a random half, so that many ranks don't come back at the same moment.
    """

    def __init__(self, service: Service, doing: str, seconds: float | None = None) -> None:
        self._service, self._doing = service, doing
        self._seconds = GIVE_UP_SECONDS if seconds is None else seconds
        self.tries = 0
        self.progress()

    def progress(self) -> None:
        """Something arrived: the patience is whole again."""
        self._since: float | None = None  # the first error since something arrived
        self._pause, self._renewed = 0.1, False

    def after(self, error: Exception, where: str = "") -> None:
        """Wait, or raise what `error` means if trying again is no use or has lasted too long."""
        from botocore.exceptions import ClientError

        self.tries += 1
        self._since = self._since or time.monotonic()
        doing = f"{self._doing}{where}"
        if isinstance(error, ClientError):
            code, answer = error_code(error), error.response
            status = answer["ResponseMetadata"]["HTTPStatusCode"]
            if code in ("NoSuchKey", "404"):
                raise MissingKeyError(f"{self._service.url}: {doing}: it does not exist") from None
            if code in EXPIRED and not self._renewed:
                self._service.renew()  # credentials of a profile or an environment that was refreshed meanwhile
                self._service.count_retry()
                self._renewed = True
                return
            if code in REFUSED:
                raise StoreError(
                    f"{self._service.url}: {doing}: {code}: {answer['Error'].get('Message', '')}. Renew the "
                    "AWS credentials of this host; what was trained so far is kept in the last checkpoint."
                ) from None
            if (status < 500 and code not in PASSING) or status == NOT_IMPLEMENTED:
                raise StoreError(f"{self._service.url}: {doing}: {error}") from error
        if time.monotonic() - self._since > self._seconds:
            raise StoreError(
                f"{self._service.url}: {doing}: {error}; gave up after {self.tries} tries, the last "
                f"{self._seconds:.0f} s without a byte"
            ) from error
        self._service.count_retry()
        time.sleep(self._pause * _jitter.uniform(0.5, 1.0))
        self._pause = min(2 * self._pause, LONGEST_PAUSE)


def error_code(error: Exception) -> str | None:
    """The service's own error code; None if the error isn't the service's."""
    from botocore.exceptions import ClientError

    return str(error.response["Error"]["Code"]) if isinstance(error, ClientError) else None


def transient() -> tuple[type[Exception], ...]:
    from http.client import HTTPException

    from botocore.exceptions import ClientError, ConnectionError, CredentialRetrievalError, HTTPClientError

    network = (HTTPClientError, ConnectionError, HTTPException, OSError, WrongLengthError)
    return (ClientError, CredentialRetrievalError, *network)


class WrongLengthError(Exception):
    """A body is shorter than was announced, or of another length than was asked for."""


def attempt(service: Service, doing: str, act: Callable[[], T], seconds: float | None = None) -> T:
    """What `act` gives, in the end. Raises what its errors mean when trying again is no use."""
    patience = Patience(service, doing, seconds)
    while True:
        try:
            return act()
        except transient() as error:
            patience.after(error)
