"""`alexvgg recipe`"""

import json

import click

from alexvgg.cli.names import tables_and_recipes


@click.command()
@click.argument("name", shell_complete=tables_and_recipes)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def recipe(name: str, as_json: bool) -> None:
    """Show a table's runs, or one run, with what each starts from.

    \b
    Examples:
      alexvgg recipe table4
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
    runs = [
        {
            "name": r.name, "parent": r.parent.name if r.parent else None, "model": r.model, "scale": r.scale,
            "lr": r.lr, "global_batch": r.global_batch, "epochs": r.epochs,
        }
        for r in lineage(targets[name])
    ]  # fmt: skip
    if as_json:
        click.echo(json.dumps({"rows": rows, "runs": runs}, indent=2))
        return
    if rows:
        click.echo(f"{name}: {len(rows)} rows from {len(runs)} runs")
    click.echo(f"{'run':<20}{'starts from':<20}{'S':>11}{'lr':>8}{'batch':>7}{'epochs':>8}")
    for r in runs:
        scale = str(r["scale"]).replace(", ", ";").replace("(", "[").replace(")", "]")
        start = r["parent"] or "random"
        click.echo(f"{r['name']:<20}{start:<20}{scale:>11}{r['lr']:>8}{r['global_batch']:>7}{r['epochs']:>8}")
