"""Package versions: what is required, and what is known to be bad."""

import pytest
from packaging.requirements import Requirement

from alexvgg.doctor.versions import check_versions, problems

GOOD = {"torch": "2.14.1", "torchvision": "0.29.2", "ray": "2.60.0", "mlflow": "3.17.2"}


def details(**installed: str | None) -> list[str]:
    versions = GOOD | installed
    needed = [Requirement("ray>=2.59"), *(Requirement(name) for name in versions if name != "ray")]
    return [f"{f.name} {f.state} {f.detail}" for f in problems(needed, versions)]


def test_this_environment_is_as_required() -> None:
    assert [f.state for f in check_versions()] == ["ok", "ok"]


@pytest.mark.parametrize(
    ("package", "version", "detail"),
    [
        ("ray", None, "package ray failed is missing"),
        ("ray", "2.40.0", "package ray failed 2.40.0 isn't >=2.59: older releases let anyone"),
        ("mlflow", "3.18.0", "package mlflow failed 3.18.0: it needs an mlflow-skinny"),
        ("torchvision", "0.28.0", "torch 2.14.1 and torchvision 0.28.0 don't belong together"),
    ],
)
def test_a_bad_one_is_named_with_the_reason(package: str, version: str | None, detail: str) -> None:
    assert details() == []
    (found,) = details(**{package: version})
    assert detail in found
