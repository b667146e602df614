"""`alexvgg data …`"""

import click


@click.group()
def data() -> None:
    """Make and check datasets in object storage."""


@data.command()
@click.argument("name", type=click.Choice(["digits"]))
@click.argument("url")
def sample(name: str, url: str) -> None:
    """Pack a small real dataset as WebDataset shards at URL (s3://… or file://…).

    digits: scikit-learn's 1,797 scans of handwritten digits.

    \b
    Example:
      alexvgg data sample digits s3://my-bucket/digits
    """
    from alexvgg.data.sample import pack_digits
    from alexvgg.data.shards import open_dataset
    from alexvgg.data.store import open_store

    store = open_store(url)
    pack_digits(store)
    packed = open_dataset(store)
    click.echo(f"{url}: {len(packed.train)} train, {len(packed.val)} validation, fingerprint {packed.fingerprint}")
