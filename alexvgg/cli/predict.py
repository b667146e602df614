"""`alexvgg predict`"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from alexvgg.cli.names import run_names
from alexvgg.cli.options import json_option, place_options, test_scales_option
from alexvgg.cli.place import open_stores
from alexvgg.cli.progress import say
from alexvgg.errors import InputError
from alexvgg.exits import Exit

if TYPE_CHECKING:
    from alexvgg.weights.predict import Guess, Method

BAR = 20  # characters for a probability of 1


@click.command()
@click.argument("run", shell_complete=run_names)
@click.argument(
    "images", nargs=-1, required=True, metavar="IMAGE…", type=click.Path(exists=True, dir_okay=False, path_type=Path)
)
@click.option(
    "--method",
    type=click.Choice(["dense", "central"]),
    default="dense",
    show_default=True,
    help="The whole image and its mirror image, or one crop of the centre.",
)
@test_scales_option
@click.option("--top", type=click.IntRange(min=1), default=5, show_default=True, help="How many classes.")
@place_options("storage", "dataset")
@json_option
def predict(
    run: str,
    images: tuple[Path, ...],
    method: Method,
    test_scales: tuple[int, ...] | None,
    top: int,
    profile: str | None,
    storage: str | None,
    dataset: str | None,
    as_json: bool,
) -> None:
    """Classify images with a finished run: the most probable classes.

    Their names and the mean that is subtracted are read from the dataset's description. What is no image is named in
    its place, and the exit status is 1.

    \b
    Examples:
      alexvgg predict vgg_e-jitter-3f2a91c4 cat.jpg dog.png
      alexvgg predict alexnet-s256-77aa01c2 cat.jpg --method central --json
    """
    from dataclasses import asdict

    from alexvgg.weights import predict as predicting
    from alexvgg.weights.trained import open_trained

    trained = open_trained(*open_stores(profile, storage=storage, dataset=dataset), run)
    scales = test_scales or trained.test_scales
    found: list[dict[str, Any]] = []
    if not as_json:
        click.echo(f"{trained.run.name}, {method}, Q={','.join(map(str, scales))}")
    for path in images:
        try:
            pixels = predicting.read_image(path)
        except InputError as error:
            found.append({"image": str(path), "error": str(error)})
            say(str(error))
            continue
        best = predicting.predict(trained, pixels, method=method, test_scales=scales, top=top)
        found.append({"image": str(path), "top": [asdict(guess) for guess in best]})
        if not as_json:
            click.echo("\n".join([f"{path}", *map(_line, best)]))
    if as_json:
        click.echo(
            json.dumps({"run": trained.run.name, "method": method, "test_scales": scales, "images": found}, indent=2)
        )
    sys.exit(Exit.FAILED if any("error" in image for image in found) else Exit.DONE)


def _line(guess: Guess) -> str:
    bar = "█" * round(BAR * guess.probability)
    return f"  {100 * guess.probability:5.1f} %  {bar:<{BAR}}  {guess.name}"
