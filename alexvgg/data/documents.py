"""JSON documents in a storage, which a hand, a crash or another version may have left in any state."""

import json
from collections.abc import Callable
from typing import Any, TypeVar

from alexvgg.data.store import Store
from alexvgg.errors import reading

T = TypeVar("T")


def encode(document: Any) -> bytes:
    """A document of JSON types as people like to read it."""
    return json.dumps(document, indent=2).encode()


def read_document(storage: Store, key: str, made_of: Callable[[Any], T]) -> T:
    """What `made_of` makes of the document.

    Raises MissingKeyError, and InputError, naming it, if it can't be read: a process was killed while it wrote to a
    file system, or another version of this package has written it.
    """
    data = storage.get(key)
    with reading(key):
        return made_of(json.loads(data))
