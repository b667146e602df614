"""Images that no decoder can read: each costs a slot of weight zero, is named, and too many of them stop the run."""

from dataclasses import dataclass, field

from alexvgg.data.decode import Bottom, Pixels, UndecodableError, decode
from alexvgg.data.shards import Split
from alexvgg.errors import InputError

MAX_BAD_SHARE = 0.001  # of a split; more than this stop the run (at least 10 are allowed)


@dataclass
class Undecodable:
    """What could not be decoded so far, on one rank. `url` is the dataset's, for the message."""

    url: str
    reasons: dict[str, str] = field(default_factory=dict)  # key of the sample -> why
    _seen: dict[int, set[str]] = field(default_factory=dict)  # keys by split

    def decode(self, split: Split, sample: int, data: bytes, bottom: Bottom | None = None) -> Pixels | None:
        """RGB pixels (h, w, 3), as far as `bottom`, or None if it can't be decoded.

        Raises InputError if there are too many of those.
        """
        try:
            return decode(data, bottom)
        except UndecodableError as error:
            self.name(split, split.keys[sample], str(error))
            return None

    def name(self, split: Split, key: str, why: str) -> None:
        """Remember an image of `split`, once. Raises InputError if there are too many of those."""
        seen = self._seen.setdefault(id(split), set())
        self.reasons[key] = why
        seen.add(key)
        if len(seen) > max(10, MAX_BAD_SHARE * len(split)):
            raise InputError(
                f"{len(seen)} images of {self.url} can't be decoded, the last is {key!r}: {why}. Check that the shards "
                "hold JPEG, PNG or WebP images."
            )
