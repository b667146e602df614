"""Settings of a profile: where each comes from, and what is refused."""

from pathlib import Path

import pytest

from alexvgg.errors import InputError
from alexvgg.profiles import Setting, Source, chosen, settings_of, to_profile, user_file

LAB = '[profile.lab]\ndashboard = "http://ray:8265"\nstorage = "s3://b/runs"\ndataset = "s3://b/images"\n'


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project folder, and a user, without files."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "user"))
    monkeypatch.delenv("ALEXVGG_PROFILE", raising=False)
    return tmp_path


@pytest.fixture
def user(project: Path) -> Path:
    user_file().parent.mkdir(parents=True)
    return user_file()


def test_the_first_place_that_has_a_setting_counts(project: Path, user: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    user.write_text('[profile.lab]\ndashboard = "http://user"\nmlflow = "http://user"\ngpus_per_node = 2\n')
    (project / "alexvgg.toml").write_text(LAB)
    monkeypatch.setenv("ALEXVGG_DATASET", "s3://env")
    monkeypatch.setenv("ALEXVGG_STORAGE", "s3://env")
    found = settings_of("lab", {"storage": "s3://flag", "dataset": None})
    assert found == {
        "dashboard": Setting("http://ray:8265", "alexvgg.toml"),
        "storage": Setting("s3://flag", "--storage"),
        "dataset": Setting("s3://env", "ALEXVGG_DATASET"),
        "mlflow": Setting("http://user", str(user)),
        "geometry": Setting("paper", "default"),
        "gpus_per_node": Setting(2, str(user)),
        "max_nodes": Setting(None, "default"),
        "gpu": Setting(None, "default"),
    }
    assert to_profile(settings_of("lab")).gpus_per_node == 2
    monkeypatch.setenv("ALEXVGG_GPUS_PER_NODE", "8")
    monkeypatch.setenv("ALEXVGG_MAX_NODES", "16")
    assert to_profile(settings_of("lab")).gpus_per_node == 8
    assert to_profile(settings_of("lab")).max_nodes == 16


def test_the_local_cluster_comes_before_defaults_and_after_files(project: Path) -> None:
    built_in = Source("local cluster", {"storage": "s3://alexvgg", "geometry": "small"})
    assert settings_of("local", built_in=built_in)["geometry"] == Setting("small", "local cluster")
    (project / "alexvgg.toml").write_text('[profile.local]\nstorage = "file:///runs"\n')
    assert settings_of("local", built_in=built_in)["storage"] == Setting("file:///runs", "alexvgg.toml")


def test_which_profile_counts(project: Path, user: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert chosen(None) == Setting("local", "built in")
    user.write_text('default = "home"\n')
    assert chosen(None) == Setting("home", str(user))
    (project / "alexvgg.toml").write_text('default = "lab"\n' + LAB)
    assert chosen(None) == Setting("lab", "alexvgg.toml")
    monkeypatch.setenv("ALEXVGG_PROFILE", "env")
    assert chosen(None) == Setting("env", "ALEXVGG_PROFILE")
    assert chosen("flag") == Setting("flag", "--profile")


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("[profile.lab", "is no TOML"),
        ('[profiles.lab]\nstorage = "s3://b"', "no setting 'profiles'; did you mean 'profile'"),
        ('profile = "lab"', r"profiles are tables; write \[profile.NAME\]"),
        (LAB + "gpu_per_node = 1", "gpu_per_node is not a setting of .profile.lab.; did you mean 'gpus_per_node'"),
        (LAB + 'gpus_per_node = "8"', "gpus_per_node: Input should be a valid integer, not '8'"),
        ('[profile.lab]\ndataset = "s3://b"', "storage is missing"),
        (LAB + 'mlflow = ""', "the profile's mlflow is ''; write it as http://HOST:PORT"),
        (LAB.replace("lab", "lap"), "alexvgg.toml has no .profile.lab.; did you mean 'lap'"),
    ],
)
def test_a_wrong_file_is_refused(text: str, sentence: str, project: Path) -> None:
    (project / "alexvgg.toml").write_text(text)
    with pytest.raises(InputError, match=sentence):
        to_profile(settings_of("lab"))


def test_another_profiles_mistake_is_its_own(project: Path) -> None:
    (project / "alexvgg.toml").write_text(LAB + '[profile.old]\nbucket = "s3://b"\n')
    assert to_profile(settings_of("lab")).storage == "s3://b/runs"
    with pytest.raises(InputError, match=r"bucket is not a setting of .profile.old."):
        settings_of("old")


@pytest.mark.parametrize("misspelt", ["ALEXVGG_STORGE", "ALEXVGG_DATASETS", "ALEXVGG_PROFIL", "ALEXVGG_GPU_PER_NODE"])
def test_a_misspelt_variable_is_refused(misspelt: str, project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (project / "alexvgg.toml").write_text(LAB)
    for foreign in ("ALEXVGG_IMAGE", "ALEXVGG_INSECURE", "ALEXVGG_COLLECTIVE_SECONDS", "ALEXVGG_BUCKET"):
        monkeypatch.setenv(foreign, "1")
    settings_of("lab")
    monkeypatch.setenv(misspelt, "8")
    with pytest.raises(InputError, match=f"{misspelt} is set, which nothing reads; did you mean ALEXVGG_"):
        settings_of("lab")


def test_a_wrong_environment_is_refused(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (project / "alexvgg.toml").write_text(LAB)
    monkeypatch.setenv("ALEXVGG_GPUS_PER_NODE", "many")
    with pytest.raises(InputError, match="ALEXVGG_GPUS_PER_NODE='many' is no number"):
        to_profile(settings_of("lab"))


@pytest.mark.parametrize(
    ("field", "url", "instead"),
    [
        ("mlflow", "http://me:canary@mlflow:5000", "MLFLOW_TRACKING_PASSWORD"),
        ("dashboard", "https://me:canary@ray:8265", "RAY_AUTH_TOKEN"),
        ("storage", "s3://key:canary@bucket/runs", "AWS environment"),
        ("mlflow", "https://canary@mlflow:5000", "MLFLOW_TRACKING_PASSWORD"),
        ("mlflow", "user:canary@mlflow:5000", "MLFLOW_TRACKING_PASSWORD"),
        ("mlflow", "http://[user:canary@mlflow", "MLFLOW_TRACKING_PASSWORD"),
    ],
)
def test_a_user_or_a_password_in_a_url_is_refused(project: Path, field: str, url: str, instead: str) -> None:
    (project / "alexvgg.toml").write_text(LAB)
    with pytest.raises(InputError, match=f"the URL of {field} holds a user name or a password") as refused:
        to_profile(settings_of("lab", {field: url}))
    assert instead in str(refused.value)
    assert "canary" not in str(refused.value)
