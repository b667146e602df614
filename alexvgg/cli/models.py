"""`alexvgg models`"""

import json

import click

from alexvgg.cli.options import json_option

# Table 2 of the VGG paper, and AlexNet's abstract, in millions. Of the nets in their texts no number is given.
PAPER_PARAMS_M = {
    "alexnet": 60, "vgg_a": 133, "vgg_a_lrn": 133, "vgg_b": 133, "vgg_c": 134, "vgg_d": 138, "vgg_e": 144,
}  # fmt: skip


@click.command()
@json_option
def models(as_json: bool) -> None:
    """List the nets with their exact sizes.

    \b
    Example:
      alexvgg models --json
    """
    from alexvgg.architectures import MODEL_NAMES, architecture

    rows = []
    for name in MODEL_NAMES:
        net = architecture(name)
        sizes = {"weight_layers": net.weight_layers, "params": net.params, "crop": net.crop, "macs": net.macs}
        rows.append({"name": name, **sizes, "paper_params_m": PAPER_PARAMS_M.get(name)})
    if as_json:
        click.echo(json.dumps(rows, indent=2))
        return
    click.echo(f"{'model':<20}{'layers':>7}{'parameters':>14}{'paper, M':>10}{'crop':>6}{'MACs':>16}")
    for r in rows:
        paper = "-" if r["paper_params_m"] is None else str(r["paper_params_m"])
        click.echo(f"{r['name']:<20}{r['weight_layers']:>7}{r['params']:>14,}{paper:>10}{r['crop']:>6}{r['macs']:>16,}")
