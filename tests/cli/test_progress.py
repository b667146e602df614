"""Bars on a terminal, lines elsewhere, and nothing from ranks that keep quiet."""

import os
import pty
import subprocess
import sys

import pytest

from alexvgg.cli.progress import telling

CODE = """
from alexvgg.cli.progress import telling
from alexvgg.data.progress import Progress
with telling() as tell:
    tell("two [parts] to score")
    progress = Progress("scored", 2, tell, "parts")
    progress.add()
    progress.add()
"""


def test_a_terminal_gets_a_bar_under_the_lines() -> None:
    terminal, theirs = pty.openpty()
    with subprocess.Popen([sys.executable, "-c", CODE], stderr=theirs, env={**os.environ, "TERM": "xterm"}) as process:
        os.close(theirs)
        shown = b""
        try:
            while part := os.read(terminal, 1 << 16):
                shown += part
        except OSError:  # the other end is closed
            os.close(terminal)
    text = shown.decode()
    assert process.returncode == 0, text
    assert "two [parts] to score" in text, "brackets aren't markup"
    assert "scored" in text
    assert "2/2" in text
    assert "\u2501" in text, "a bar"


def test_a_pipe_gets_lines() -> None:
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=True)
    assert done.stderr == "two [parts] to score\nscored 2 of 2 parts\n"
    assert not done.stdout


def test_other_ranks_keep_quiet(capsys: pytest.CaptureFixture[str]) -> None:
    with telling(aloud=False) as tell:
        tell("not said")
    assert capsys.readouterr() == ("", "")
