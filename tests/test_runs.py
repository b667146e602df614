"""What the storage says of runs, also where others have written into it, or a newer version."""

import json
import logging
from pathlib import Path

import pytest
from records import DATASET, SPECS

from alexvgg.attempts import Attempt, Claim
from alexvgg.campaign.overview import overview
from alexvgg.campaign.plan import Campaign, Training
from alexvgg.cli.status import format_overview
from alexvgg.config import Execution, to_dict
from alexvgg.data.store import MissingKeyError, Store, open_store
from alexvgg.errors import InputError
from alexvgg.recipes import GEOMETRIES
from alexvgg.results.table import fill
from alexvgg.runs import find_finished, list_fusions, list_runs, read_run, run_names
from alexvgg.tracking.describing import read_provenance

A, B = SPECS["vgg_a-s256"], SPECS["vgg_b-s256"]
FOLDER = f"runs/{A.name}/"


@pytest.fixture
def storage(tmp_path: Path) -> Store:
    """Two finished runs."""
    store = open_store(tmp_path.as_uri())
    for spec in (A, B):
        row = {"method": "dense", "members": [{"run": spec.name, "weights": "0", "test_scales": [256]}], "images": 9,
               "top1_error": 5.0, "top5_error": 1.0}  # fmt: skip
        event = {"event": "final", "step": 9, "time": 1.0, "metrics": {}}
        for file, document in {
            "spec.json": to_dict(spec), "journal.jsonl": event, "final/record.json": {"sha256": "0"},
            "eval/dense-q256.json": row, "provenance/1.json": {"attempt": 1},
        }.items():  # fmt: skip
            store.put(f"runs/{spec.name}/{file}", json.dumps(document).encode() + b"\n")
    return store


FUTURE = json.dumps({**to_dict(A), "data": {**to_dict(A.data), "future": 1}}).encode()


@pytest.mark.parametrize(
    ("file", "data", "told"),
    [
        ("spec.json", FUTURE, "data.future is not a setting of RunSpec"),
        ("spec.json", b"", "Expecting value"),
        ("final/record.json", b"{}", "isn't what alexvgg writes: KeyError('sha256')"),
        ("journal.jsonl", b'{"event": "start"}\n', "a line is no event"),
        ("journal.jsonl", b'{"cut\n{"event": "start", "step": 0, "time": 1}\n', "Unterminated string"),
        ("attempts/1.json", b'{"job": "j", "execution": {}, "future": 1}', "isn't what alexvgg writes: TypeError"),
        ("eval/dense-q256.json", b'{"members": [{}]}', "isn't what alexvgg writes: KeyError('weights')"),
    ],
)
def test_a_run_that_cannot_be_read_is_named_and_leaves_the_others_alone(
    storage: Store, caplog: pytest.LogCaptureFixture, file: str, data: bytes, told: str
) -> None:
    storage.put(FOLDER + file, data)
    with pytest.raises(InputError) as raised:
        read_run(storage, A.name)
    assert str(raised.value).startswith(FOLDER + file)
    assert told in str(raised.value)
    assert [r.name for r in list_runs(storage)] == [B.name]
    (warning,) = caplog.records
    assert warning.levelno == logging.WARNING
    assert warning.message.startswith(f"{A.name} is left out: {FOLDER}{file}")
    shown = {w.name: w for w in overview(storage).runs}
    assert (shown[A.name].phase, shown[B.name].phase) == ("unreadable", "finished")
    assert told in "\n".join(format_overview(overview(storage), {}))


def test_a_campaign_that_cannot_be_read_is_named(storage: Store) -> None:
    Campaign(A.name, (Training(A),), Execution("file:///d", storage.url)).save(storage)
    key = f"campaigns/{A.name}/plan.json"
    storage.put(key, storage.get(key).replace(b'"recipe"', b'"future"'))
    lines = list(format_overview(overview(storage), {}))
    assert lines[0].startswith(f"{A.name}: {key}: recipe is missing; future is not a setting of RunSpec")
    assert {w.name: w.phase for w in overview(storage).runs} == {A.name: "finished", B.name: "finished"}


@pytest.mark.parametrize("journal", [b"", b'{"event": "sta'])
def test_a_journal_without_a_whole_line_is_empty(storage: Store, journal: bytes) -> None:
    storage.put(FOLDER + "journal.jsonl", journal)
    runs = list_runs(storage)
    assert [len(r.journal) for r in runs] == [0, 1]
    assert [r.run for r in fill("table3", runs, [], DATASET, GEOMETRIES["small"]) if r.run] == [A.name, B.name]


def test_a_last_line_that_was_cut_off_is_dropped(storage: Store) -> None:
    storage.put(FOLDER + "journal.jsonl", storage.get(FOLDER + "journal.jsonl") + b'{"event": "epo')
    assert [e["event"] for e in read_run(storage, A.name).journal] == ["final"]


def test_what_others_put_there_is_no_run(storage: Store) -> None:
    for key in (
        "runs/stray/notes.txt", "runs/other/eval/mine.json", f"{FOLDER}eval/mine.json", f"{FOLDER}provenance/.DS_Store",
        f"{FOLDER}attempts/².json", "fusions/mine.json",
    ):  # fmt: skip
        storage.put(key, b'{"mine": 1}')
    assert [r.name for r in list_runs(storage)] == run_names(storage) == [A.name, B.name]
    assert len(read_run(storage, A.name).evaluation) == 1
    assert read_provenance(storage, A.name) == {"attempt": 1}
    assert list_fusions(storage) == []
    assert [w.name for w in overview(storage).runs] == [A.name, B.name]


def test_rows_of_other_weights_are_not_the_runs(storage: Store) -> None:
    members = [{"run": A.name, "weights": "old", "test_scales": [384]}]
    storage.put(FOLDER + "eval/dense-q384.json", json.dumps({"method": "dense", "members": members}).encode())
    assert [row["members"][0]["weights"] for row in read_run(storage, A.name).evaluation] == ["0"]


def test_a_claim_makes_a_run(storage: Store) -> None:
    storage.put("runs/claimed/attempts/1.json", b'{"job": "j", "execution": {}}')
    assert "claimed" in run_names(storage)


def test_a_run_that_was_claimed_only_was_not_begun(storage: Store) -> None:
    """A plain process claims it before it stores anything: it can be stopped by its name, and has nothing to show."""
    before = [r.name for r in list_runs(storage)]
    Attempt(storage, "runs/claimed/", 1).claim(Claim("process 1 on a", {}))
    assert "claimed" in run_names(storage)
    assert [r.name for r in list_runs(storage)] == before
    with pytest.raises(MissingKeyError, match=r"runs/claimed/spec\.json"):
        read_run(storage, "claimed")


def test_a_run_that_trains_has_no_final_weights_yet(storage: Store) -> None:
    storage.delete(f"{FOLDER}final/record.json")
    with pytest.raises(InputError, match=f"{A.name} has started but isn't finished"):
        find_finished(storage, A.name)
    Attempt(storage, f"runs/{A.name}/", 1).claim(Claim("process 1 on a", {}))
    with pytest.raises(InputError, match=f"{A.name} is being trained, as `alexvgg status` shows"):
        find_finished(storage, A.name)
