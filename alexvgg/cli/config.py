"""`alexvgg config …`"""

from __future__ import annotations

import json
import sys
from typing import Any

import click

from alexvgg.cli.commands import Commands
from alexvgg.cli.options import json_option, profile_option
from alexvgg.cli.place import settings_here
from alexvgg.exits import Exit


@click.group(cls=Commands)
def config() -> None:
    """Where storage, dataset, MLflow and Ray are, and who says so."""


@config.command()
@profile_option
@json_option
def show(profile: str | None, as_json: bool) -> None:
    """Show every setting of a profile, and where its value came from.

    The first place that has a setting counts: a flag, the environment (ALEXVGG_STORAGE, …), alexvgg.toml of this
    folder, config.toml of the user, the built-in local profile, the default. Exits with 2 if one is wrong.

    \b
    Example:
      alexvgg config show --profile lab
    """
    from dataclasses import asdict, replace

    from alexvgg.profiles import PROJECT_FILE, SECRETS, SETTINGS, chosen, user_file, without_login

    name, settings = chosen(profile), settings_here(profile)
    files = {str(path): path.exists() for path in (PROJECT_FILE, user_file())}
    wrong = {key: why for key, setting in settings.items() if (why := _refused(key, setting.value)) is not None}
    for key in SECRETS.keys() & wrong.keys():
        settings[key] = replace(settings[key], value=without_login(str(settings[key].value)))
    code = Exit.REFUSED if wrong or "storage" not in settings else Exit.DONE
    if as_json:
        document = {"profile": asdict(name), "settings": {k: asdict(s) for k, s in settings.items()}, "files": files}
        click.echo(json.dumps(document | {"wrong": wrong}, indent=2))
        sys.exit(code)
    rows = {"profile": name, **{key: settings[key] for key in SETTINGS if key in settings}}
    shown = {key: "-" if s.value is None else str(s.value) for key, s in rows.items()}
    width = max(map(len, shown.values()))
    for key, setting in rows.items():
        click.echo(f"{key:<14}  {shown[key]:<{width}}  {setting.origin}")
        if key in wrong:
            click.echo(f"  that is wrong: {wrong[key]}")
    for key in SETTINGS:
        if key not in settings:
            click.echo(f"{key:<14}  {'':<{width}}  missing")
    for path, there in files.items():
        if not there:
            click.echo(f"There is no {path}.", err=True)
    sys.exit(code)


def _refused(setting: str, value: Any) -> str | None:
    """Why every command that needs it would refuse the setting; None if they wouldn't."""
    from alexvgg.data.store import check_url
    from alexvgg.errors import InputError
    from alexvgg.profiles import Setting, to_profile
    from alexvgg.recipes import GEOMETRIES, choose

    try:
        to_profile({"storage": Setting("file:///", ""), setting: Setting(value, "")})
        if setting == "geometry":
            choose(GEOMETRIES, value, setting)
        elif value is not None and setting in ("storage", "dataset"):
            check_url(value)
    except InputError as error:
        return str(error)
    return None
