"""What makes a run reproducible beside its spec: the code and packages it ran with, the command, the machines.

The code is looked at where a run is submitted, since `.git` doesn't travel in a Ray job; the machines where it trains
(`alexvgg.tracking.machine`).
Nothing secret is kept: values that look like one are replaced before anything is stored.
"""

import hashlib
import os
import platform
import re
import shlex
import subprocess
import sys
from collections.abc import Iterable, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from alexvgg import __version__
from alexvgg.data.documents import encode
from alexvgg.data.store import Store
from alexvgg.keys import submission_key

HIDDEN = "***"
MOST_DIFF_BYTES = 200_000
PRIVATE_FILES = ("*.env", ".env*", "*.pem", "*.key", "*credentials*", "*secret*")  # no diff of them is kept
GIT_SECONDS = 20

# What may not be stored: `name = value` where the name says that it is a secret, keys by their known forms, user names
# and passwords in URLs, what signs them, and the lines of private keys.
SECRETS = (
    re.compile(
        r"""(?i)([\w-]*(?:secret|token|passw(?:or)?d|api_?key|access_?key|credential)[\w-]*["']?\s*[=:]\s*)"""
        r"""(?:"[^"]+"|'[^']+'|[\w+/=.~-]{6,}(?![\w(\[]))"""
    ),
    re.compile(r"([A-Z0-9_]*(?:SECRET|TOKEN|PASS|PWD|KEY|CREDENTIAL)[A-Z0-9_]*=)(?![*\s])\S+"),  # as shells set it
    re.compile(r"(?i)\b((?:bearer|basic)\s+)[\w+/=.~-]{6,}"),
    re.compile(r"(?i)(--[\w-]*(?:secret|token|password|key)\s+)\S+"),
    re.compile(r"()\b(?:AKIA|ASIA)[0-9A-Z]{16}\b"),
    re.compile(r"()\b(?:ghp|gho|ghs|github_pat|glpat|hf|sk|xox[bp])[-_][\w-]{16,}"),
    re.compile(r"()\beyJ[\w-]{5,}\.[\w-]+\.[\w-]*"),  # a JSON web token
    re.compile(r"""(?i)(\bpassw(?:or)?d=)[^\s"'&,;)]+"""),
    re.compile(r"""(?i)(\b(?:x-amz-(?:signature|credential|security-token)|sig|signature)=)[^\s"'&]+"""),
    re.compile(r"""(?i)(\bauthorization["']?\s*[:=]\s*["']?)[^\s"'][^"'\n]*"""),
    re.compile(r"""(\w://)[^/\s"'<>]+(?=@)"""),
    re.compile(r"(?s)(-----BEGIN [A-Z ]*PRIVATE KEY-----).*?(?=-----END|\Z)"),
)


def redact(text: str) -> str:
    """`text` with everything that looks like a secret replaced."""
    for secret in SECRETS:
        text = secret.sub(rf"\g<1>{HIDDEN}", text)
    return text


def look_at_code(argv: Iterable[str] = sys.argv) -> dict[str, Any]:
    """Commit and uncommitted changes of this code, its lock file, the packages installed, and the command given."""
    folder = Path(__file__).parents[1]
    tracked = _git(folder, "ls-files", "--error-unmatch", Path(__file__).relative_to(folder).as_posix())
    top = _git(folder, "rev-parse", "--show-toplevel").strip() if tracked else ""  # of someone else's, if not
    root = Path(top) if top else folder.parent
    lock = root / "requirements.lock"
    program, *arguments = argv
    name = Path(program).name.replace("__main__.py", "alexvgg")  # as `python -m alexvgg` has it
    return {
        "version": __version__,
        "command": redact(shlex.join([name, *arguments])),
        "git": _working_tree(root) if top else None,
        "lock_sha256": hashlib.sha256(lock.read_bytes()).hexdigest() if lock.is_file() else None,
        "python": platform.python_version(),
        "packages": dict(sorted({d.metadata["Name"].lower(): d.version for d in metadata.distributions()}.items())),
    }


def _working_tree(root: Path) -> dict[str, Any]:
    besides = [f":(exclude,glob,icase)**/{pattern}" for pattern in PRIVATE_FILES]
    diff = _git(root, "diff", "HEAD", "--no-ext-diff", "--no-color", "--", ".", *besides)
    untracked = _git(root, "ls-files", "--others", "--exclude-standard").splitlines()
    kept = redact(diff)
    if len(kept) > MOST_DIFF_BYTES:
        kept = kept[:MOST_DIFF_BYTES] + "\n(cut here)\n"
    return {
        "commit": _git(root, "rev-parse", "HEAD").strip() or None,
        "diff": kept,
        "diff_sha256": hashlib.sha256(diff.encode()).hexdigest()[:12] if diff else None,
        "untracked": untracked,
    }


def _git(folder: Path, *arguments: str) -> str:
    """What git answers; empty where there is no git or no repository."""
    command = ["git", "-C", str(folder), *arguments]
    environment = os.environ | {"GIT_OPTIONAL_LOCKS": "0", "LC_ALL": "C"}
    try:
        done = subprocess.run(command, capture_output=True, timeout=GIT_SECONDS, env=environment, check=True)
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.decode(errors="replace")


def remember_code(storage: Store, code: Mapping[str, Any]) -> str:
    """Store what `look_at_code` found, once for all runs of a submission; returns its key."""
    document = encode(code)
    key = submission_key(hashlib.sha256(document).hexdigest()[:12])
    storage.put_new(key, document)
    return key
