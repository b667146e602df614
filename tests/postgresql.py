"""A PostgreSQL server of one's own, from Debian's package `postgresql`: one folder, one loopback port."""

import os
import pwd
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from processes import free_port, listens, wait_for

REQUIRED = "ALEXVGG_REQUIRE_POSTGRESQL"  # with this set, tests fail instead of being skipped where it is missing
MISSING = "PostgreSQL's server is not installed; on Debian: apt-get install postgresql"
UNPRIVILEGED = "postgres"  # of Debian's package; the server refuses to run as root


def find() -> Path | None:
    """The folder of the newest version's programs, which Debian keeps out of PATH."""
    debian = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda p: int(p.parts[-3]))
    found = [p.resolve() for p in (*map(Path, filter(None, [shutil.which("initdb")])), *debian)]
    return next((p.parent for p in reversed(found) if (p.parent / "postgres").exists()), None)


@contextmanager
def running(programs: Path, folder: Path) -> Iterator[str]:
    """The URL of a new, empty database, for SQLAlchemy. `folder` must be new."""
    port, data = free_port(), folder / "data"
    owner = _hand_over(folder)
    make = [str(programs / "initdb"), "--pgdata", str(data), "--username", "mlflow", "--auth", "trust", "--no-sync"]
    subprocess.run(make, check=True, stdout=subprocess.DEVNULL, user=owner, cwd=folder)
    serve = [str(programs / "postgres"), "-D", str(data), "-h", "127.0.0.1", "-p", str(port), "-k", str(folder)]
    with (folder / "log").open("wb") as log:
        server = subprocess.Popen([*serve, "-c", "fsync=off"], stdout=log, stderr=log, user=owner, cwd=folder)
    try:
        wait_for(lambda: listens(port), "PostgreSQL's start")
        yield f"postgresql+psycopg://mlflow@127.0.0.1:{port}/postgres"
    finally:
        server.terminate()
        server.wait()


def _hand_over(folder: Path) -> int | None:
    """Let PostgreSQL's user have the folder, and reach it, if this is root; else nothing needs to change hands."""
    if os.getuid() != 0:
        return None
    user = pwd.getpwnam(UNPRIVILEGED)
    os.chown(folder, user.pw_uid, user.pw_gid)
    return user.pw_uid
