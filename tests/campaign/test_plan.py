"""What a campaign's plan says of its works, and that it is read as it was written."""

from dataclasses import replace
from typing import Any

from memory import MemoryStore

from alexvgg.campaign.dag import Node, Workers
from alexvgg.campaign.plan import Campaign, Evaluation, Training, name_of
from alexvgg.config import Execution
from alexvgg.planning import Images, plan_runs
from alexvgg.recipes import GEOMETRIES, RECIPES
from alexvgg.request import Request

A, E = plan_runs([RECIPES["vgg_e-s256"]], Images("digits", 10, "f" * 64), GEOMETRIES["small"])
BOTH = Request((A.name, E.name), "both", (256,), fuse=True)
WORKS = (Training(A, 3.5), Training(E, 7.0), Evaluation(BOTH))
HOW = Execution("file:///d", "file:///s", workers=8)


def test_a_work_says_what_it_needs_costs_and_makes() -> None:
    assert Campaign("c", WORKS, HOW).nodes == [
        Node(A.name, (), 3.5),
        Node(E.name, (A.name,), 7.0),
        Node(BOTH.name, (A.name, E.name), 0.0, BOTH.passes),
    ]


def test_a_plan_is_read_as_it_was_saved_and_how_it_is_carried_out_may_change() -> None:
    storage: Any = MemoryStore()
    for how in (HOW, replace(HOW, workers=4, mlflow_url="http://127.0.0.1:7")):
        campaign = Campaign("c", WORKS, how)
        campaign.save(storage)
        assert Campaign.load(storage, "c") == campaign


def test_an_elastic_campaign_takes_what_there_is() -> None:
    assert Campaign("c", WORKS, HOW).workers == Workers(8, 8)
    assert Campaign("c", WORKS, replace(HOW, min_workers=2)).workers == Workers(2, 8)


def test_a_name_follows_from_the_works_in_any_order() -> None:
    name = name_of("table4", WORKS)
    assert name == name_of("table4", WORKS[::-1])
    assert name.startswith("table4-")
    assert len({name, name_of("table3", WORKS), name_of("table4", WORKS[:2])}) == 3


def test_only_what_trains_is_done_by_what_lies_in_the_storage() -> None:
    storage: Any = MemoryStore()
    for work in WORKS:
        work.describe(storage)
    storage.put(f"runs/{A.name}/final/record.json", b"{}")
    assert [work.is_done(storage) for work in WORKS] == [True, False, False]
