"""Installed packages against what this package requires, and against combinations that are known to be bad."""

import platform
from collections.abc import Iterator, Mapping
from importlib.metadata import PackageNotFoundError, requires, version

from packaging.requirements import Requirement
from packaging.version import Version

from alexvgg.doctor.finding import Finding

INSTALL = "Install this package again with its lock: `uv pip install --require-hashes -r requirements.lock`"

# Package, versions and why not.
KNOWN_BAD = (
    ("ray", "<2.59", "older releases let anyone who reaches the dashboard run code"),
    ("mlflow", "==3.18.0", "it needs an mlflow-skinny that was never released"),
    ("boto3", "<1.36", "it has no conditional writes"),
    ("click", "==8.2.0", "flags with a default are read wrongly"),
    ("click", ">=8.3.0,<8.3.2", "flags with a default are read wrongly"),
    ("torch", "<2.14", "its builds for CPUs don't fit the released torchvision, whose operators link CUDA"),
)
TORCHVISION_AHEAD = 15  # torch 2.14 belongs to torchvision 0.29, and so on


def check_versions() -> Iterator[Finding]:
    """Python, each requirement, and torch beside torchvision."""
    yield Finding("python", "ok", platform.python_version())
    required = [Requirement(text) for text in requires("alexvgg") or ()]
    needed = [r for r in required if r.marker is None or r.marker.evaluate({"extra": ""})]
    installed = {r.name: _version(r.name) for r in needed}
    wrong = list(problems(needed, installed))
    yield from wrong
    if not wrong:
        told = ", ".join(f"{name} {installed[name]}" for name in ("torch", "ray", "mlflow", "boto3", "click"))
        yield Finding("packages", "ok", f"all {len(needed)} are as required: {told}, …")


def problems(needed: list[Requirement], installed: Mapping[str, str | None]) -> Iterator[Finding]:
    """What is missing, of a wrong version, or known to be bad."""
    for r in needed:
        found = installed[r.name]
        if found is None:
            yield Finding(f"package {r.name}", "failed", "is missing", INSTALL)
        elif not r.specifier.contains(found, prereleases=True):
            why = "".join(f": {why}" for name, bad, why in KNOWN_BAD if name == r.name and _is(found, bad))
            yield Finding(f"package {r.name}", "failed", f"{found} isn't {r.specifier}{why}", INSTALL)
        else:
            for name, bad, why in KNOWN_BAD:
                if name == r.name and _is(found, bad):
                    yield Finding(f"package {r.name}", "failed", f"{found}: {why}", INSTALL)
    torch, torchvision = installed.get("torch"), installed.get("torchvision")
    if torch and torchvision and Version(torchvision).minor - Version(torch).minor != TORCHVISION_AHEAD:
        detail = f"torch {torch} and torchvision {torchvision} don't belong together"
        yield Finding("package torchvision", "failed", detail, INSTALL)


def _is(found: str, versions: str) -> bool:
    return Requirement(f"any{versions}").specifier.contains(found, prereleases=True)


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
