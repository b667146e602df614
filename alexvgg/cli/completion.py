"""`alexvgg completion`"""

import click
from click.shell_completion import get_completion_class


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print a script that completes commands, options and names in a shell.

    \b
    Examples:
      eval "$(alexvgg completion bash)"                                     in ~/.bashrc
      eval "$(alexvgg completion zsh)"                                      in ~/.zshrc
      alexvgg completion fish > ~/.config/fish/completions/alexvgg.fish
    """
    kind = get_completion_class(shell)
    assert kind is not None, "click knows these shells"
    click.echo(kind(ctx.find_root().command, {}, "alexvgg", "_ALEXVGG_COMPLETE").source())
