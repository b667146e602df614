"""`alexvgg config …`"""

from __future__ import annotations

import json

import click

from alexvgg.cli.commands import Commands
from alexvgg.cli.place import profile_option, settings_here


@click.group(cls=Commands)
def config() -> None:
    """Where storage, dataset, MLflow and Ray are, and who says so."""


@config.command()
@profile_option
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def show(profile: str | None, as_json: bool) -> None:
    """Show every setting of a profile, and where its value came from.

    The first place that has a setting counts: a flag, the environment (ALEXVGG_STORAGE, …), alexvgg.toml of this
    folder, config.toml of the user, the built-in local profile, the default.

    \b
    Example:
      alexvgg config show --profile lab
    """
    from dataclasses import asdict

    from alexvgg.profiles import PROJECT_FILE, SETTINGS, chosen, user_file

    name, settings = chosen(profile), settings_here(profile)
    files = {str(path): path.exists() for path in (PROJECT_FILE, user_file())}
    if as_json:
        document = {"profile": asdict(name), "settings": {k: asdict(s) for k, s in settings.items()}, "files": files}
        click.echo(json.dumps(document, indent=2))
        return
    rows = {"profile": name, **{key: settings[key] for key in SETTINGS if key in settings}}
    shown = {key: "-" if s.value is None else str(s.value) for key, s in rows.items()}
    width = max(map(len, shown.values()))
    for key, setting in rows.items():
        click.echo(f"{key:<14}  {shown[key]:<{width}}  {setting.origin}")
    for key in SETTINGS:
        if key not in settings:
            click.echo(f"{key:<14}  {'':<{width}}  missing")
    for path, there in files.items():
        if not there:
            click.echo(f"There is no {path}.", err=True)
