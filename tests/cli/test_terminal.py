"""What a terminal shows, and what a pipe gets: bars, colours, settings, completion."""

import json
import os
import pty
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner

from alexvgg.cli import main

ALEXVGG = str(Path(sys.executable).with_name("alexvgg"))
ESCAPE = "\x1b["


@pytest.fixture
def terminal(tmp_path: Path) -> Callable[..., str]:
    """`terminal("models", NO_COLOR="1")`: all that the command writes to a terminal of 80 columns."""

    def run(*arguments: str, **environment: str) -> str:
        ours, theirs = pty.openpty()
        env = {k: v for k, v in os.environ.items() if k not in ("NO_COLOR", "CI")}
        env |= {"COLUMNS": "80", "TERM": "xterm-256color", "XDG_CONFIG_HOME": str(tmp_path), **environment}
        process = subprocess.Popen([ALEXVGG, *arguments], cwd=tmp_path, env=env, stdout=theirs, stderr=theirs)
        os.close(theirs)
        written = b""
        while True:
            try:
                block = os.read(ours, 4096)
            except OSError:  # Linux's way of saying that the other side is closed
                break
            written += block
        os.close(ours)
        process.wait()
        return written.decode().replace("\r\n", "\n")

    return run


def test_a_terminal_gets_bars_and_a_pipe_gets_lines(terminal: Callable[..., str], digits_url: str) -> None:
    shown = terminal("data", "verify", digits_url, NO_COLOR="1")
    assert "━" in shown
    assert not re.search(r"\x1b\[[\d;]*m", re.sub(r"\x1b\[0?m", "", shown)), "a colour"
    piped = CliRunner().invoke(main, ["data", "verify", digits_url])
    assert ESCAPE not in piped.output
    assert re.search(r"read \d+ of \d+ shards, 0.00 GB", piped.stderr)


def test_findings_have_colours_on_terminals_that_want_them(terminal: Callable[..., str]) -> None:
    coloured = terminal("doctor")
    assert f"{ESCAPE}32mok" in coloured
    assert ESCAPE not in terminal("doctor", NO_COLOR="1")
    lines = re.sub(r"\x1b\[\d*m", "", coloured).splitlines()
    assert max(map(len, lines)) <= 80


def test_settings_have_origins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "user"))
    monkeypatch.delenv("ALEXVGG_PROFILE", raising=False)
    (tmp_path / "alexvgg.toml").write_text('[profile.lab]\nstorage = "s3://b/runs"\ndataset = "s3://b/images"\n')
    monkeypatch.setenv("ALEXVGG_GEOMETRY", "small")
    shown = CliRunner().invoke(main, ["config", "show", "--profile", "lab"])
    assert shown.stdout.splitlines() == [
        "profile         lab            --profile",
        "storage         s3://b/runs    alexvgg.toml",
        "dataset         s3://b/images  alexvgg.toml",
        "dashboard       -              default",
        "mlflow          -              default",
        "geometry        small          ALEXVGG_GEOMETRY",
        "gpus_per_node   0              default",
        "max_nodes       -              default",
        "gpu             -              default",
    ]
    document = json.loads(CliRunner().invoke(main, ["config", "show", "--json"]).stdout)
    assert document["profile"] == {"value": "local", "origin": "built in"}
    assert document["settings"]["storage"]["origin"] == "local cluster, which isn't up"
    assert document["files"] == {"alexvgg.toml": True, str(tmp_path / "user" / "alexvgg" / "config.toml"): False}


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ('geometry = "tiny"', "no geometry 'tiny'"),
        ("gpus_per_node = -1", "gpus_per_node: Input should be greater than or equal to 0"),
        ('dashboard = ""', "the profile's dashboard is ''"),
        ('dataset = "/data"', "'/data' isn't a storage URL"),
        (None, "storage                    missing"),
    ],
)
def test_a_wrong_setting_is_marked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: str | None, told: str
) -> None:
    monkeypatch.chdir(tmp_path)
    storage = 'dataset = "file:///d"' if settings is None else f'storage = "s3://b"\n{settings}'
    (tmp_path / "alexvgg.toml").write_text(f"[profile.lab]\n{storage}\n")
    shown = CliRunner().invoke(main, ["config", "show", "--profile", "lab"])
    assert shown.exit_code == 2
    assert told in shown.stdout
    assert CliRunner().invoke(main, ["config", "show", "--profile", "lab", "--json"]).exit_code == 2
    assert CliRunner().invoke(main, ["submit", "--model", "vgg_a", "--profile", "lab", "--dry-run"]).exit_code == 2


def test_a_profile_without_a_dataset_is_right_and_a_login_is_never_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "alexvgg.toml").write_text('[profile.lab]\nstorage = "s3://b"\n')
    assert CliRunner().invoke(main, ["config", "show", "--profile", "lab"]).exit_code == 0
    monkeypatch.setenv("ALEXVGG_MLFLOW", "http://me:canary@mlflow:5000")
    for more in ((), ("--json",)):
        shown = CliRunner().invoke(main, ["config", "show", "--profile", "lab", *more])
        assert shown.exit_code == 2
        assert "http://***@mlflow:5000" in shown.stdout
        assert "holds a user name or a password" in shown.stdout
        assert "canary" not in shown.output


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_shells_complete_commands_and_options(shell: str) -> None:
    assert "_ALEXVGG_COMPLETE" in CliRunner().invoke(main, ["completion", shell]).stdout


def test_bash_completes_what_is_begun(tmp_path: Path) -> None:
    def completed(*words: str) -> list[str]:
        env = {**os.environ, "_ALEXVGG_COMPLETE": "bash_complete", "COMP_WORDS": " ".join(["alexvgg", *words])}
        env["COMP_CWORD"] = str(len(words))
        out = subprocess.run([ALEXVGG], env=env, cwd=tmp_path, capture_output=True, text=True, check=True).stdout
        return [line.split(",")[1] for line in out.splitlines() if line]

    assert completed("doc") == ["doctor"]
    assert completed("doctor", "--pr") == ["--profile"]
    assert completed("table", "table3") == ["table3"]
    run = tmp_path / ".alexvgg/s3/alexvgg/runs/vgg_e-s256-3f2a91c4/spec.json"
    run.parent.mkdir(parents=True)
    run.touch()
    assert completed("lineage", "vgg_e") == ["vgg_e-s256-3f2a91c4"]
    assert completed("lineage", "--profile", "absent", "vgg_e") == []
    assert completed("recipe", "vgg_e-") == ["vgg_e-s256", "vgg_e-s384", "vgg_e-jitter"]
    assert completed("train", "vgg_a_") == ["vgg_a_lrn-s256"]
    assert completed("submit", "--model", "vgg_a_") == ["vgg_a_lrn"]
