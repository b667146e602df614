"""Every command says what it is and shows how it is called; docs and README call only what there is."""

import os
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner
from reference import cli_page, commands, config_page, help_of

from alexvgg.cli import main
from alexvgg.cli.parameters import OutputFile
from alexvgg.exits import Exit

ROOT = Path(__file__).parents[2]
COMMANDS = [(name, command) for name, command in commands() if not isinstance(command, click.Group)]
WRITERS = {
    "alexvgg logs", "alexvgg stop", "alexvgg resume", "alexvgg retry", "alexvgg export", "alexvgg import",
    "alexvgg completion", "alexvgg report",
    "alexvgg cluster up", "alexvgg cluster down", "alexvgg cluster render",
    "alexvgg data sample", "alexvgg data pack", "alexvgg data index",
}  # fmt: skip  # that print a log, a file's name or a line

each = pytest.mark.parametrize(("name", "command"), COMMANDS, ids=[name for name, _ in COMMANDS])


@each
def test_a_command_has_a_summary_of_one_line_and_an_example(name: str, command: click.Command) -> None:
    summary = str(command.help).split("\n\n")[0]
    assert "\n" not in summary.strip(), "the first paragraph is the summary in lists: one line"
    assert len(command.get_short_help_str(200)) <= 120
    assert any(line.startswith(name) for line in examples(command))


@each
def test_what_reads_has_json(name: str, command: click.Command) -> None:
    assert ("--json" in {o for p in command.params for o in p.opts}) == (name not in WRITERS)


@pytest.mark.parametrize(("page", "text"), [("cli.md", cli_page), ("config.md", config_page)])
def test_docs_are_what_the_program_says(page: str, text: object) -> None:
    path, made = ROOT / "docs" / page, text()  # type: ignore[operator]
    if os.environ.get("ALEXVGG_UPDATE_GOLDEN"):
        path.write_text(made)
    assert made == path.read_text(), f"{path} is stale; `make golden` renews it"


def test_exit_codes_are_documented() -> None:
    assert set(Exit) == {0, 1, 2, 100, 102, 103, 130, 143}  # scripts rely on them
    text = CliRunner().invoke(main, ["--help"]).stdout
    assert all(f"{code:>3}  {code.meaning}" in text for code in Exit)


def examples(command: click.Command) -> list[str]:
    """The calls below Example or Examples in a command's help."""
    _, _, below = help_of("", command).partition("Example")
    lines = [line.strip() for line in below.splitlines()[1:]]
    return list(lines[: lines.index("")] if "" in lines else lines)


def calls(text: str) -> Iterator[list[str]]:
    """The arguments of every `alexvgg …` in code: of Markdown's console blocks and of its inline code."""
    text = text.replace("\\\n", " ")
    blocks = re.findall(r"^ *```console\n(.*?)```", text, re.DOTALL | re.MULTILINE)
    inline = re.findall(r"`(alexvgg [^`]+)`", re.sub(r"^ *```.*?```", "", text, flags=re.DOTALL | re.MULTILINE))
    lines = [line.strip().removeprefix("$ ") for block in blocks for line in block.splitlines()]
    for line in [*lines, *(" ".join(call.split()) for call in inline)]:
        words = shlex.split(line, comments=True)
        if words[:1] == ["alexvgg"]:
            yield words[1:]
        elif words[:1] == ["torchrun"]:
            yield words[words.index("alexvgg") + 1 :]


def parse(arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Raises what click would for an unknown command, option or value; nothing is called, no path need exist.

    What is only named, `alexvgg export`, or left open by `…`, may lack arguments.
    """
    for kind in (click.Path, OutputFile):
        monkeypatch.setattr(kind, "convert", lambda self, value, param, ctx: value)
    command: click.Command = main
    context = click.Context(main)
    while isinstance(command, click.Group):
        if not arguments or arguments[0].startswith("-"):
            return
        name, command, arguments = command.resolve_command(context, arguments)
        context = click.Context(command, parent=context, info_name=name)
    try:
        command.parse_args(context, [a for a in arguments if a != "--help"])
    except click.MissingParameter:
        if arguments and "…" not in arguments:
            raise


@each
def test_examples_can_be_called(name: str, command: click.Command, monkeypatch: pytest.MonkeyPatch) -> None:
    for line in examples(command):
        called = re.sub(r'eval "\$\((.*)\)".*', r"\1", line)
        for arguments in calls(f"```console\n{called}\n```"):
            if ">" in arguments or ">>" in arguments:
                arguments = arguments[: min(arguments.index(w) for w in (">", ">>") if w in arguments)]
            parse(arguments, monkeypatch)


def test_what_the_readme_calls_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    found = list(calls((ROOT / "README.md").read_text()))
    assert len(found) > 20
    for arguments in found:
        try:
            parse(list(arguments), monkeypatch)
        except click.UsageError as error:
            pytest.fail(f"README: alexvgg {' '.join(arguments)}: {error.format_message()}")


QUICK = (
    "models",
    "recipe",
    "data sample digits",
    "completion",
    "config show",
    "submit --model vgg_e --nodes 4 --dry-run",
)


def test_what_the_readme_calls_works_where_it_is_quick(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    ran = 0
    for arguments in calls((ROOT / "README.md").read_text().replace("file:///tmp/", f"{tmp_path.as_uri()}/")):
        if " ".join(arguments).startswith(QUICK):
            result = CliRunner().invoke(main, arguments)
            assert result.exit_code == 0, f"alexvgg {' '.join(arguments)}: {result.output}"
            ran += 1
    assert ran >= 4


@pytest.mark.parametrize("words", [["tabel"], ["frobnicate", "now"], ["table", "table4", "--jsn"], ["table", "tabel4"]])
def test_an_unknown_word_is_refused(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """The test of the tests above, and what a person sees."""
    with pytest.raises(click.UsageError):
        parse(list(words), monkeypatch)
    result = CliRunner().invoke(main, words)
    assert result.exit_code == 2
    assert ("Did you mean" in result.stderr) == (words[-1] in ("tabel", "--jsn"))
