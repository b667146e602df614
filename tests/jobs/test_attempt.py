"""The job of an attempt: what can't be mended by trying again ends it as failed, not as lost."""

import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import ray
import torch

from alexvgg.attempts import Attempt, Claim, failure, history, standing
from alexvgg.config import Execution, to_dict
from alexvgg.data.store import open_store
from alexvgg.planning import Images, plan_runs
from alexvgg.recipes import GEOMETRIES, RECIPES
from alexvgg.request import Request
from jobs.attempt import carry_out
from jobs.ranks import evaluate_rank, train_rank
from jobs.workers import MistakeError

(A,) = plan_runs([RECIPES["vgg_a-s256"]], Images("digits", 10, "f" * 64), GEOMETRIES["small"])
REQUEST = Request((A.name,), "dense", (256,))


@pytest.mark.parametrize(
    ("folder", "rank"),
    [
        (f"runs/{A.name}/", lambda e: train_rank(A, e, 1)),
        (f"evaluations/{REQUEST.name}/", lambda e: evaluate_rank(REQUEST, e, 1)),
    ],
)
def test_a_worker_without_the_gpu_it_was_promised_does_not_train_on_its_cpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folder: str, rank: Callable[[Execution], None]
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    url = tmp_path.as_uri()
    execution = Execution(url, url, gpus_per_worker=1)
    Attempt(open_store(url), folder, 1).claim(Claim("a-a1", to_dict(execution)))
    rank(execution)
    assert str(failure(history(open_store(url), folder))).startswith("torch sees no GPU on ")


@pytest.fixture
def attempt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Attempt]:
    monkeypatch.setattr(ray, "init", lambda **_: None)
    handler = signal.getsignal(signal.SIGTERM)
    yield Attempt(open_store(tmp_path.as_uri()), "runs/a/", 1)
    signal.signal(signal.SIGTERM, handler)


def test_a_claim_of_another_version_fails(attempt: Attempt) -> None:
    attempt.claim(Claim("a-a1", to_dict(Execution("d", "s")) | {"worker": 2}))
    assert carry_out(attempt, lambda _: None) == 1
    expected = "worker is not a setting of Execution; did you mean 'workers'?"
    assert failure(history(attempt.storage, attempt.folder)) == expected


@pytest.mark.parametrize(("error", "state"), [(MistakeError, "failed"), (RuntimeError, "open")])
def test_a_mistake_in_the_code_is_not_tried_again(attempt: Attempt, error: type[Exception], state: str) -> None:
    def work(_: Execution) -> None:
        raise error("rank 1: KeyError('fc9')")

    attempt.claim(Claim("a-a1", to_dict(Execution("d", "s"))))
    assert carry_out(attempt, work) == 1
    records = history(attempt.storage, attempt.folder)
    assert standing(records) == state
    assert records[0].end is not None
    assert records[0].end.error == "rank 1: KeyError('fc9')"
