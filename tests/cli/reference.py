"""docs/cli.md and docs/config.md, from what the program itself says."""

import json
from collections.abc import Iterator
from dataclasses import MISSING, fields

import click

from alexvgg.cli import main
from alexvgg.config import RunSpec, flat
from alexvgg.exits import Exit
from alexvgg.planning import FIXED, Images, plan_runs
from alexvgg.profiles import PREFIX, Profile
from alexvgg.recipes import GEOMETRIES, RECIPES

WIDTH = 100  # of help texts


def commands(group: click.Group = main, prefix: str = "alexvgg") -> Iterator[tuple[str, click.Command]]:
    """Every command with its full name, in the order of `--help`; groups before what they hold."""
    for name, command in group.commands.items():
        yield f"{prefix} {name}", command
        if isinstance(command, click.Group):
            yield from commands(command, f"{prefix} {name}")


def help_of(name: str, command: click.Command) -> str:
    context = click.Context(
        command, info_name=name, terminal_width=WIDTH, max_content_width=WIDTH, help_option_names=["-h", "--help"]
    )
    return "\n".join(line.rstrip() for line in command.get_help(context).splitlines())


def cli_page() -> str:
    """The command reference as Markdown."""
    listed = list(commands())
    index = [
        f"| [`{name}`](#{name.replace(' ', '-')}) | {command.get_short_help_str(200)} |" for name, command in listed
    ]
    codes = [f"| {code} | {code.meaning} |" for code in Exit]
    sections = [f"## `{name}`\n\n```\n{help_of(name, command)}\n```\n" for name, command in listed]
    return "\n".join([
        "# Command reference\n",
        "Made from each command's `--help` by `make golden`; a test fails if it is stale. Results go to stdout, "
        "progress and hints to stderr; what reads has `--json`. `NO_COLOR` is respected. "
        "Settings: [config.md](config.md).\n",
        "| Command | |", "|---|---|", *index, "",
        "| Exit code | |", "|---|---|", *codes, "",
        *sections,
    ])  # fmt: skip


def config_page() -> str:
    """The settings of a profile as Markdown."""
    described = Profile.__pydantic_fields__  # type: ignore[attr-defined]
    rows = [
        f"| `{f.name}` | {described[f.name].description.replace('|', '/')} | "
        f"{'required' if f.default is MISSING else '' if f.default is None else f'`{f.default}`'} | "
        f"`{PREFIX}{f.name.upper()}` |"
        for f in fields(Profile)
    ]
    return "\n".join([
        "# Settings\n",
        "`alexvgg.toml` in the folder where you call `alexvgg` says where things are. It has one table for each place "
        "to run, and may name the one that counts without `--profile`:\n",
        "```toml", 'default = "lab"           # without it: local, the cluster on this machine', "", "[profile.lab]",
        'dashboard = "http://ray-head:8265"', 'storage = "s3://my-bucket/alexvgg"', 'dataset = "s3://my-bucket/imagenet"',
        'mlflow = "http://mlflow:5000"', "gpus_per_node = 8", "```\n",
        "| Setting | What it is | Default | Environment |", "|---|---|---|---|", *rows, "",
        "Each setting comes from the first of these that has it: a flag (`--storage`, `--dataset`, `--geometry`), the "
        "environment, `alexvgg.toml` in this folder, `~/.config/alexvgg/config.toml` (the same tables, for all your "
        "projects; `XDG_CONFIG_HOME` moves it), the built-in `local` profile, the default. The profile itself is "
        "named by `--profile`, `ALEXVGG_PROFILE` or `default`. `alexvgg config show` prints every value with its "
        "origin. Unknown settings are refused.\n",
        "Credentials, region and endpoint of S3 come from the AWS environment, Ray's token from `RAY_AUTH_TOKEN` or "
        "`RAY_AUTH_TOKEN_PATH`, MLflow's login from `MLFLOW_TRACKING_USERNAME` and its like: none of them belongs in a "
        "file that is shared.\n",
        "## Settings of a run\n",
        "`--set KEY=VALUE` changes one, for the run and all that it starts from. With another value it is another run "
        "with another name, and tables say so behind it, but for seeds. `paper` and `small` are the geometries.\n",
        "| Setting | What it is | VGG, paper | AlexNet, paper | VGG, small |", "|---|---|---|---|---|", *_of_runs(), "",
    ])  # fmt: skip


def _of_runs() -> Iterator[str]:
    images = Images("ilsvrc2012", 1000, "0" * 64)
    recipes = (("vgg_a-s256", "paper"), ("alexnet-s256", "paper"), ("vgg_a-s256", "small"))
    specs = [plan_runs([RECIPES[name]], images, GEOMETRIES[size])[-1] for name, size in recipes]
    for key in (k for k in flat(specs[0]) if not k.startswith(FIXED)):
        section, _, setting = key.rpartition(".")
        kind = type(getattr(specs[0], section)) if section else RunSpec
        about = kind.__pydantic_fields__[setting].description
        yield f"| `{key}` | {about} | {' | '.join(f'`{json.dumps(flat(s)[key])}`' for s in specs)} |"
