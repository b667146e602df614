"""What is sent to the Jobs API for a campaign, and that the same is never sent twice."""

import shlex
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from memory import MemoryStore
from ray.job_submission import JobStatus

from alexvgg.attempts import DEAD_SECONDS, Attempt, Claim, Silence, history, standing
from alexvgg.campaign.plan import Campaign, Evaluation, Training
from alexvgg.config import Execution, to_dict
from alexvgg.data.store import open_store
from alexvgg.errors import InputError, NotFoundError
from alexvgg.lease import Newcomer
from alexvgg.planning import Images, plan_runs
from alexvgg.recipes import GEOMETRIES, RECIPES
from alexvgg.request import Request
from jobs.ray_jobs import start
from jobs.submit import driven_by, give_up, go_on, send, send_evaluation, stop

SPECS = plan_runs([RECIPES["vgg_b-s256"]], Images("digits", 10, "f" * 64), GEOMETRIES["small"])
A, B = (spec.name for spec in SPECS)
EXECUTION = Execution("s3://b/digits", "s3://b/runs", workers=4)
CAMPAIGN = Campaign(B, tuple(Training(spec) for spec in SPECS), EXECUTION)


class Jobs:
    """The Jobs API, as far as submitting goes; `hidden` jobs come after the next time that jobs are listed."""

    def __init__(self) -> None:
        self.jobs: dict[str, Any] = {}
        self.stopped: list[str] = []
        self.hidden: set[str] = set()

    def list_jobs(self) -> list[Any]:
        listed = [job for name, job in self.jobs.items() if name not in self.hidden]
        self.hidden.clear()
        return listed

    def submit_job(self, **request: Any) -> None:
        name = request["submission_id"]
        if name in self.jobs:
            raise RuntimeError(f"job {name} exists")
        self.jobs[name] = SimpleNamespace(**request, start_time=len(self.jobs), status=JobStatus.RUNNING)

    def get_job_info(self, name: str) -> Any:
        return self.jobs[name]

    def get_job_status(self, name: str) -> JobStatus:
        return self.jobs[name].status  # type: ignore[no-any-return]

    def stop_job(self, name: str) -> bool:
        if self.jobs[name].status != JobStatus.RUNNING:
            return False
        self.stopped.append(name)
        return True


def store() -> Any:
    return MemoryStore()


def test_a_driver_is_sent_once_until_it_ends() -> None:
    jobs: Any = Jobs()
    storage = store()
    assert send(CAMPAIGN, storage, jobs) == (f"{B}-d1", True)
    assert send(CAMPAIGN, storage, jobs) == (f"{B}-d1", False)
    request = jobs.jobs[f"{B}-d1"]
    assert shlex.split(request.entrypoint) == ["python", "-m", "jobs.campaign", storage.url, B, f"{B}-d1"]
    assert request.metadata == {"alexvgg": B, "kind": "driver", "storage": storage.url}
    assert Campaign.load(storage, B).works == CAMPAIGN.works
    said: list[str] = []
    other = replace(CAMPAIGN, execution=replace(EXECUTION, workers=8, submitted="submissions/0.json"))
    assert send(other, storage, jobs, say=said.append) == (f"{B}-d1", False)
    assert said == [
        "it goes on as it was sent, with workers 4 (not 8): to change that, stop it first and submit it again"
    ]
    request.status = JobStatus.FAILED
    assert send(CAMPAIGN, storage, jobs) == (f"{B}-d2", True)


def test_a_stop_looks_where_the_campaign_lies(tmp_path: Path) -> None:
    """The job says which storage that is: `submit --storage` may have named another one than the profile's."""
    jobs: Any = Jobs()
    storage = open_store(tmp_path.as_uri())
    job, _ = send(CAMPAIGN, storage, jobs)
    lease = Newcomer(storage, B, job, lambda _: False).take()
    assert lease is not None
    lease.stopping()  # as the driver does when Ray stops it
    assert stop(jobs, job)
    ours, others = Attempt(storage, f"runs/{A}/", 1), Attempt(storage, f"runs/{B}/", 1)
    ours.claim(Claim(f"{A}-a1", {}, B, 1))
    others.claim(Claim(f"{B}-a1", {}, "another", 1))
    give_up(jobs, job)
    assert (ours.outcome(), others.outcome()) == ("stopped", None), "a campaign that shares a run isn't stopped"
    jobs.jobs[job].status = JobStatus.STOPPED
    assert not stop(jobs, job)


def test_what_a_dead_driver_has_started_can_be_stopped() -> None:
    jobs: Any = Jobs()
    storage = store()
    job, _ = send(CAMPAIGN, storage, jobs)
    start(jobs, storage.url, CAMPAIGN.works[0], 1, Claim(f"{A}-a1", to_dict(EXECUTION), B, 1))
    jobs.jobs[job].status = JobStatus.FAILED  # kill -9
    assert stop(jobs, job)
    assert jobs.stopped == [f"{A}-a1"]


def test_a_number_that_a_dead_driver_used_up_is_passed_over() -> None:
    """The cluster was built anew, where no job is known but one that ended before it held the lease."""
    jobs: Any = Jobs()
    storage = store()
    assert Newcomer(storage, B, f"{B}-d1", lambda _: False).take() is not None
    assert send(CAMPAIGN, storage, jobs) == (f"{B}-d2", True)
    jobs.jobs[f"{B}-d2"].status = JobStatus.FAILED
    assert send(CAMPAIGN, storage, jobs) == (f"{B}-d3", True)


def test_a_retry_is_heard_by_a_driver_at_work() -> None:
    jobs: Any = Jobs()
    storage = store()
    send(CAMPAIGN, storage, jobs)
    attempt = Attempt(storage, f"runs/{A}/", 1)
    attempt.claim(Claim(f"{A}-a1", {}))
    attempt.end("failed", "the GPU fell off the bus")
    assert send(CAMPAIGN, storage, jobs) == (f"{B}-d1", False)
    assert standing(history(storage, f"runs/{A}/")) == "open"


def test_what_there_is_to_go_on_with() -> None:
    jobs: Any = Jobs()
    storage = store()
    with pytest.raises(NotFoundError, match="there is no 'vgg_b'"):
        go_on("vgg_b", storage, jobs, forgive=False)
    send(CAMPAIGN, storage, jobs)
    jobs.jobs[f"{B}-d1"].status = JobStatus.STOPPED
    assert go_on("vgg_b", storage, jobs, forgive=False) == [(f"{B}-d2", True)]
    for name in (A, B):
        storage.put(f"runs/{name}/final/record.json", b'{"sha256": "0"}')
    with pytest.raises(InputError, match=f"all of {B} is finished: there is nothing to go on with"):
        go_on(A, storage, jobs, forgive=True)
    alone = plan_runs([RECIPES["alexnet-s256"]], Images("digits", 10, "f" * 64), GEOMETRIES["small"])[-1]
    Training(alone).describe(storage)
    with pytest.raises(InputError, match="belongs to no campaign: give the command that began it once more"):
        go_on("alexnet", storage, jobs, forgive=True)


@pytest.mark.parametrize("how", ["asked", "ended"])
def test_a_driver_that_is_ending_is_waited_for(how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    jobs: Any = Jobs()
    storage, said = store(), []
    send(CAMPAIGN, storage, jobs)
    attempt = Attempt(storage, f"runs/{A}/", 1)
    attempt.claim(Claim(f"{A}-a1", {}))
    assert send(CAMPAIGN, storage, jobs) == (f"{B}-d1", False)
    lease = Newcomer(storage, B, f"{B}-d1", lambda _: False).take()
    assert lease is not None
    attempt.end("stopped")
    assert send(CAMPAIGN, storage, jobs) == (f"{B}-d1", False), "a work may have been stopped by another campaign"
    lease.stopping() if how == "asked" else lease.turn.end("stopped")

    def sleep(_seconds: float) -> None:
        if len(slept := [*said]) == 1:
            said.append("slept")
        else:
            jobs.jobs[f"{B}-d1"].status = JobStatus.STOPPED
        assert slept[0] == f"{B}-d1 is ending; waiting for that"

    monkeypatch.setattr("jobs.submit.time.sleep", sleep)
    assert send(CAMPAIGN, storage, jobs, say=said.append) == (f"{B}-d2", True)
    assert len(said) == 2, "it was said once"


def test_two_submissions_at_the_same_moment_send_one_driver() -> None:
    jobs: Any = Jobs()
    storage = store()
    send(CAMPAIGN, storage, jobs)
    jobs.hidden = {f"{B}-d1"}  # it is sent just after the other submission has listed the jobs
    assert send(CAMPAIGN, storage, jobs) == (f"{B}-d1", False)
    jobs.jobs[f"{B}-d1"].status = JobStatus.FAILED
    jobs.hidden = {f"{B}-d1"}
    with pytest.raises(RuntimeError, match="exists"):
        send(CAMPAIGN, storage, jobs)


def test_a_rebuilt_cluster_knows_no_job_but_the_storage_knows_their_numbers() -> None:
    storage = store()
    storage.put_new(f"campaigns/{B}/drivers/7.json", b"{}")
    assert send(CAMPAIGN, storage, Jobs()) == (f"{B}-d8", True)  # type: ignore[arg-type]


def test_the_same_campaign_in_another_storage_is_another_job() -> None:
    jobs: Any = Jobs()
    first, second = store(), store()
    second.url = "memory:///elsewhere"
    assert send(CAMPAIGN, first, jobs) == (f"{B}-d1", True)
    assert send(CAMPAIGN, second, jobs) == (f"{B}-d1-2", True)
    assert send(CAMPAIGN, first, jobs) == (f"{B}-d1", False)
    assert send(CAMPAIGN, second, jobs) == (f"{B}-d1-2", False)


@pytest.mark.parametrize(("forgive", "after"), [(True, "open"), (False, "failed")])
def test_what_failed_is_tried_again_only_if_it_is_forgiven(forgive: bool, after: str) -> None:
    storage = store()
    attempt = Attempt(storage, f"runs/{A}/", 1)
    attempt.claim(Claim(f"{A}-a1", {}))
    attempt.end("failed", "the loss is nan")
    send(CAMPAIGN, storage, Jobs(), forgive=forgive)  # type: ignore[arg-type]
    assert standing(history(storage, f"runs/{A}/")) == after


def test_what_was_stopped_goes_on_whatever_is_forgiven() -> None:
    jobs: Any = Jobs()
    storage = store()
    send(CAMPAIGN, storage, jobs)
    attempt = Attempt(storage, f"runs/{A}/", 1)
    attempt.claim(Claim(f"{A}-a1", to_dict(EXECUTION)))
    attempt.end("stopped")
    said: list[str] = []
    again = go_on(A, storage, jobs, forgive=False, mlflow="http://127.0.0.1:7", say=said.append)
    assert (again, said) == ([(f"{B}-d1", False)], [f"{A}, which was stopped, goes on"])
    assert standing(history(storage, f"runs/{A}/")) == "open"


def test_a_retry_of_what_did_not_fail_is_refused() -> None:
    jobs: Any = Jobs()
    storage = store()
    send(CAMPAIGN, storage, jobs)
    with pytest.raises(InputError, match=f"nothing of {A} has failed; `alexvgg resume {A}` goes on"):
        go_on(A, storage, jobs, forgive=True)


def test_a_resumed_campaign_logs_to_where_mlflow_is_now() -> None:
    jobs: Any = Jobs()
    storage = store()
    send(CAMPAIGN, storage, jobs)
    for mlflow, expected in (("http://127.0.0.1:7", "http://127.0.0.1:7"), (None, "http://127.0.0.1:7")):
        for job in jobs.jobs.values():
            job.status = JobStatus.STOPPED
        go_on(B, storage, jobs, forgive=False, mlflow=mlflow)
        assert Campaign.load(storage, B).execution.mlflow_url == expected


def test_a_plan_that_cannot_be_read_is_named() -> None:
    jobs: Any = Jobs()
    storage = store()
    storage.put(f"campaigns/{B}/plan.json", b'{"works": [], "more": 1}')
    with pytest.raises(InputError, match=f"campaigns/{B}/plan.json isn't what alexvgg writes"):
        go_on(B, storage, jobs, forgive=False)


def test_a_stop_between_two_attempts_names_what_goes_on() -> None:
    jobs: Any = Jobs()
    storage = store()
    job, _ = send(CAMPAIGN, storage, jobs)
    start(jobs, storage.url, CAMPAIGN.works[0], 1, Claim(f"{A}-a1", to_dict(EXECUTION), B, 1))
    jobs.jobs[f"{A}-a1"].status = JobStatus.FAILED
    assert not stop(jobs, f"{A}-a1")
    assert driven_by(jobs, f"{A}-a1") == B
    jobs.jobs[job].status = JobStatus.STOPPED
    assert driven_by(jobs, f"{A}-a1") is None
    assert driven_by(jobs, job) is None


@pytest.mark.parametrize("lives", [True, False])
def test_an_evaluation_on_another_cluster_is_left_alone_while_it_lives(
    lives: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs: Any = Jobs()
    storage, request, said = store(), Request((A,), "both", (256,)), []
    theirs = Attempt(storage, f"evaluations/{request.name}/", 1)
    theirs.claim(Claim("theirs", to_dict(EXECUTION)))
    theirs.begin()
    theirs.beat(1)
    now = 0.0

    def sleep(seconds: float) -> None:
        nonlocal now
        now += seconds
        if lives:
            theirs.beat(int(now))

    clock = SimpleNamespace(sleep=sleep, monotonic=lambda: now, time=time.time)
    monkeypatch.setattr("jobs.submit.time", clock)
    monkeypatch.setattr("jobs.submit.Silence", lambda attempt: Silence(attempt, clock.monotonic))
    if lives:
        with pytest.raises(InputError, match="theirs carries it out on another cluster"):
            send_evaluation(request, EXECUTION, storage, jobs, said.append)
        assert theirs.outcome() is None
    else:
        assert send_evaluation(request, EXECUTION, storage, jobs, said.append) == (f"{request.name}-a2", True)
        assert (theirs.outcome(), now > DEAD_SECONDS) == ("lost", True)
    assert said == [
        "this cluster doesn't know theirs; looking whether it lives on another one, for at most half a minute"
    ]


def test_the_jobs_of_attempts_say_what_they_are() -> None:
    jobs: Any = Jobs()
    evaluation = Evaluation(Request((A,), "both", (256,)))
    claims = [Claim(f"{A}-a2", to_dict(EXECUTION), B, 3), Claim(f"{evaluation.node.name}-a1", to_dict(EXECUTION))]
    start(jobs, "s3://b/runs", Training(SPECS[0]), 2, claims[0])
    start(jobs, "s3://b/runs", evaluation, 1, claims[1])
    training, evaluating = jobs.jobs.values()
    assert shlex.split(training.entrypoint) == ["python", "-m", "jobs.train", "s3://b/runs", A, "2"]
    assert training.metadata == {
        "alexvgg": A,
        "kind": "training",
        "attempt": "2",
        "workers": "4",
        "campaign": B,
        "storage": "s3://b/runs",
    }
    name = evaluation.node.name
    assert shlex.split(evaluating.entrypoint) == ["python", "-m", "jobs.evaluate", "s3://b/runs", name, "1"]
    assert evaluating.metadata == {
        "alexvgg": name,
        "kind": "evaluation",
        "attempt": "1",
        "workers": "4",
        "storage": "s3://b/runs",
    }


def test_an_elastic_run_does_not_wait_long_for_nodes_that_may_be_lost() -> None:
    jobs: Any = Jobs()
    for number, least in ((1, None), (2, 2)):
        claim = Claim(f"{A}-a{number}", to_dict(replace(EXECUTION, min_workers=least)))
        start(jobs, "s3://b/runs", Training(SPECS[0]), number, claim)
    waits = [j.runtime_env["env_vars"].get("RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S") for j in jobs.jobs.values()]
    assert waits == [None, "15"]
