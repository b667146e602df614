"""What is noted of code and machines, and what must not be."""

import json
import subprocess
from pathlib import Path

import pytest

from alexvgg.data.store import open_store
from alexvgg.tracking import provenance
from alexvgg.tracking.provenance import HIDDEN, look_at_code, redact, remember_code

SECRET = "wJalrXUtnFEMIK7MDENGbPxRfiCY"


@pytest.mark.parametrize(
    "text",
    [
        f"AWS_SECRET_ACCESS_KEY={SECRET}",
        f"aws_secret_access_key = {SECRET}",
        f'+    "api_key": "{SECRET}",',
        f"password: {SECRET}  # of the database",
        f"HF_TOKEN={SECRET}",
        f"MLFLOW_TRACKING_PASSWORD=p@ss!{SECRET}",
        f"export DB_PASS={SECRET}!",
        f"Authorization: Bearer {SECRET}",
        f"alexvgg submit --api-token {SECRET} --nodes 4",
        f"alexvgg submit --set x.token={SECRET}",
        f"http://user:{SECRET}@host:5000/path",
        f"postgresql://mlflow:{SECRET}@db/mlflow",
        f"postgresql://mlflow:p@{SECRET}@db/mlflow",
        f"https://{SECRET}@host:5000",
        f"git clone https://{SECRET}@github.com/x/y and more",
        f"https://b.s3.amazonaws.com/k?X-Amz-Date=20260101&X-Amz-Signature={SECRET}&x=1",
        f"https://a.blob.core.windows.net/c?sv=2024&sig={SECRET}%3D",
        f"the token eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.{SECRET}",
        f"Authorization: {SECRET}",
        f"authorization: Token {SECRET}",
        f'"Authorization": "Digest {SECRET}"',
        "key id AKIAIOSFODNN7EXAMPLE",
        f"ghp_{SECRET}{SECRET}",
        f"-----BEGIN RSA PRIVATE KEY-----\n{SECRET}\n{SECRET}\n-----END RSA PRIVATE KEY-----",
        f"-----BEGIN PRIVATE KEY-----\n{SECRET}",
    ],
)
def test_secrets_are_replaced(text: str) -> None:
    clean = redact(text)
    assert SECRET not in clean
    assert "AKIAIOSFODNN7EXAMPLE" not in clean
    assert HIDDEN in clean


def test_short_passwords_are_replaced() -> None:
    assert redact("mysql --password=abc host") == f"mysql --password={HIDDEN} host"
    assert redact("http://x/?passwd=abc&a=b") == f"http://x/?passwd={HIDDEN}&a=b"


def test_what_is_no_secret_stays() -> None:
    text = (
        "tokens = tokenizer(x)\n+keyed = key + 1\nalexvgg submit --model vgg_e --set train.lr=0.02\n"
        "design = config=1 authorization of a\n"
        "s3://bucket/prefix https://host:5000/#/x a@b.c 97f6673d8cceabfbd604201c92569c7e5cfa"
    )
    assert redact(text) == text


def git(folder: Path, *arguments: str) -> None:
    who = ["-c", "user.name=n", "-c", "user.email=e@e.e"]
    subprocess.run(["git", "-C", str(folder), *who, *arguments], check=True, capture_output=True)


def test_uncommitted_changes_are_kept_without_secrets(tmp_path: Path) -> None:
    git(tmp_path, "init")
    for name, text in (("net.py", "lr = 1\n"), (".env", "X=1\n")):
        (tmp_path / name).write_text(text)
    git(tmp_path, "add", "--all", "--force")
    git(tmp_path, "commit", "--message", "one")
    clean = provenance._working_tree(tmp_path)
    assert len(clean["commit"]) == 40
    assert (clean["diff"], clean["diff_sha256"], clean["untracked"]) == ("", None, [])

    (tmp_path / "net.py").write_text(f"lr = 2\nsecret_key = '{SECRET}'\n")
    (tmp_path / ".env").write_text(f"X={SECRET}\n")
    (tmp_path / "new.py").write_text("pass\n")
    dirty = provenance._working_tree(tmp_path)
    assert "+lr = 2" in dirty["diff"]
    assert SECRET not in json.dumps(dirty)
    assert dirty["untracked"] == ["new.py"]
    assert dirty["commit"] == clean["commit"]
    assert len(dirty["diff_sha256"]) == 12


def test_a_huge_change_is_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(provenance, "MOST_DIFF_BYTES", 100)
    git(tmp_path, "init")
    (tmp_path / "a").write_text("")
    git(tmp_path, "add", "a")
    git(tmp_path, "commit", "--message", "one")
    (tmp_path / "a").write_text("line\n" * 1000)
    assert provenance._working_tree(tmp_path)["diff"].endswith("(cut here)\n")


def test_someone_elses_repository_around_an_installation_is_not_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed = tmp_path / ".venv" / "site-packages" / "alexvgg" / "tracking" / "provenance.py"
    installed.parent.mkdir(parents=True)
    installed.write_text("")
    git(tmp_path, "init")
    (tmp_path / "thesis.txt").write_text("private")
    git(tmp_path, "add", "thesis.txt")
    git(tmp_path, "commit", "--message", "one")
    monkeypatch.setattr(provenance, "__file__", str(installed))
    assert look_at_code(["alexvgg"])["git"] is None
    git(tmp_path, "add", "--all")
    assert look_at_code(["alexvgg"])["git"] is not None


def test_code_without_a_repository_is_described_by_its_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    code = look_at_code(["/usr/bin/alexvgg", "submit", "--set", f"x.token={SECRET}"])
    assert code["git"] is None
    assert code["command"].startswith("alexvgg submit --set")
    assert SECRET not in code["command"]
    assert code["packages"]["torch"]


def test_a_submission_is_noted_once(tmp_path: Path) -> None:
    storage = open_store(tmp_path.as_uri())
    key = remember_code(storage, {"command": "alexvgg submit"})
    assert key == remember_code(storage, {"command": "alexvgg submit"})
    assert json.loads(storage.get(key)) == {"command": "alexvgg submit"}
    assert storage.list("") == [key]
