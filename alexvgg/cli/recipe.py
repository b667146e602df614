"""`alexvgg recipe`"""

import json
from collections import Counter
from typing import Any

import click

from alexvgg.cli.names import tables_and_recipes
from alexvgg.cli.options import json_option
from alexvgg.columns import Column, aligned


@click.command()
@click.argument("name", shell_complete=tables_and_recipes)
@json_option
def recipe(name: str, as_json: bool) -> None:
    """Show a table's runs, or one run, with what each starts from.

    A row of several CNNs of one recipe takes as many runs of different seeds. Of a net beside the tables it is said
    what its paper found.

    \b
    Examples:
      alexvgg recipe table4
      alexvgg recipe alexnet_no_lrn
      alexvgg recipe vgg_e-jitter --json
    """
    from alexvgg.errors import InputError, did_you_mean
    from alexvgg.recipes import RECIPES, lineage
    from alexvgg.results.paper import TABLES

    targets = {r.target: [r] for r in RECIPES.values() if r.scale == 256}
    targets |= {recipe: [r] for recipe, r in RECIPES.items()}
    targets |= {table: [net.recipe for row in rows for net in row.nets] for table, rows in TABLES.items()}
    if name not in targets:
        raise InputError(f"there is no table or run {name!r}{did_you_mean(name, targets)}")
    rows = [
        {
            "nets": [{"recipe": net.recipe.name, "test_scales": net.test_scales} for net in r.nets],
            "method": r.method, "paper_top1": r.top1, "paper_top5": r.top5,
        }
        for r in TABLES.get(name, ())
        if r.nets
    ]  # fmt: skip
    nets_of_rows = [Counter(net.recipe.name for net in r.nets) for r in TABLES.get(name, ())]
    runs: list[dict[str, Any]] = [
        {
            "name": r.name, "seeds": max([1, *(nets[r.name] for nets in nets_of_rows)]),
            "parent": r.parent.name if r.parent else None, "model": r.model, "scale": r.scale,
            "lr": r.lr, "global_batch": r.global_batch, "epochs": r.epochs, "shows": r.shows,
        }
        for r in lineage(targets[name])
    ]  # fmt: skip
    if as_json:
        click.echo(json.dumps({"rows": rows, "runs": runs}, indent=2))
        return
    if rows:
        click.echo(f"{name}: {len(rows)} rows from {sum(r['seeds'] for r in runs)} runs")
    columns = {
        "run": "name", "starts from": "parent", "S": "scale", "lr": "lr", "batch": "global_batch", "epochs": "epochs",
        "seeds": "seeds",
    }  # fmt: skip
    click.echo("\n".join(aligned([
        Column(head, [_text(r[key]) for r in runs], left=key in ("name", "parent")) for head, key in columns.items()
    ])))  # fmt: skip
    click.echo("Batches and epochs are the papers'; runs of the small geometry have fewer.")
    for r in runs:
        if r["shows"] is not None:
            click.echo(f"{r['name']}: {r['shows']}")


def _text(value: Any) -> str:
    if value is None:
        return "random"
    return "[{};{}]".format(*value) if isinstance(value, tuple) else str(value)
