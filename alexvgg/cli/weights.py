"""`alexvgg export` and `alexvgg import`"""

from pathlib import Path

import click

from alexvgg.cli.names import run_names
from alexvgg.cli.options import place_options
from alexvgg.cli.parameters import OutputFile
from alexvgg.cli.place import open_stores
from alexvgg.cli.progress import say

# Of alexvgg.weights, which takes long to import.
FORMATS = ("torchvision", "safetensors", "onnx", "pt2")
SOURCES = ("torchvision:vgg11", "torchvision:vgg13", "torchvision:vgg16", "torchvision:vgg19")


@click.command("export")
@click.argument("run", shell_complete=run_names)
@click.option("--format", "kind", type=click.Choice(FORMATS), required=True, help="The format to write.")
@click.option("-o", "--output", type=OutputFile(), help="By default RUN and a suffix.")
@place_options("storage", "dataset")
def export_run(
    run: str, kind: str, output: Path | None, profile: str | None, storage: str | None, dataset: str | None
) -> None:
    """Write a finished run's net for other programs.

    Classes and preprocessing, which are read from the dataset's description, are in the file's metadata. torchvision:
    the state dict of its vgg11, 13, 16 or 19 as a safetensors file. Weights are ours to the bit; torchvision's
    preprocessing with the metadata's mean and std gives the same scores. safetensors: under our own names. onnx and pt2
    (torch.export): graphs for any number of images that take pixels from 0 to 255.

    \b
    Examples:
      alexvgg export vgg_e-jitter-3f2a91c4 --format onnx
      alexvgg export vgg_d-jitter-5b1c0a77 --format torchvision -o vgg16.safetensors
    """
    from alexvgg.weights.export import SUFFIXES, export
    from alexvgg.weights.trained import open_trained

    trained = open_trained(*open_stores(profile, storage=storage, dataset=dataset), run)
    path = output or Path(trained.run.name + SUFFIXES[kind])
    how = export(trained, kind, path)
    click.echo(path)
    say(how)


@click.command("import")
@click.argument("source", type=click.Choice(SOURCES))
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@place_options("storage", "dataset")
def import_weights(source: str, file: Path, profile: str | None, storage: str | None, dataset: str | None) -> None:
    """Make a finished run of torchvision's weights in FILE, which others can start from.

    FILE is a state dict in a .safetensors file or of torch.save, of which only tensors are read. Its classes must be
    the dataset's. The first layer is converted to our input, pixels minus the dataset's mean colour.

    \b
    Examples:
      alexvgg import torchvision:vgg11 vgg11.pth --profile lab
      alexvgg submit --model vgg_e --parent torchvision-vgg11-1b2c3d4e --nodes 4 --profile lab
    """
    from alexvgg.weights import importing

    store, images = open_stores(profile, storage=storage, dataset=dataset)
    click.echo(importing.import_weights(source, file, images, store).name)
