"""What may start: never before its parents, never beyond the capacity, and everything that can be done gets done."""

from collections.abc import Sequence

from hypothesis import given, settings
from hypothesis import strategies as st

from alexvgg.campaign.dag import Node, State, Workers, critical_paths, is_over, kept_back, next_starts
from alexvgg.campaign.plan import Evaluation
from alexvgg.evaluation.scoring import PASSES
from alexvgg.request import Request


@st.composite
def dags(draw: st.DrawFn) -> list[Node]:
    """Up to nine works, each of which may need any that come before it."""
    names = [f"w{i}" for i in range(draw(st.integers(1, 9)))]
    return [
        Node(name, tuple(draw(st.sets(st.sampled_from(names[:i]), max_size=3))) if i else (), draw(st.floats(0, 10)))
        for i, name in enumerate(names)
    ]


def ancestors(nodes: Sequence[Node], name: str) -> set[str]:
    needs = {n.name: set(n.needs) for n in nodes}
    found = set(needs[name])
    for parent in needs[name]:
        found |= ancestors(nodes, parent)
    return found


@given(dags(), st.data(), st.integers(1, 3), st.integers(0, 3), st.integers(3, 9))
@settings(max_examples=80, deadline=None)
def test_a_campaign_ends_with_all_done_that_can_be(
    nodes: list[Node], data: st.DataObject, least: int, elastic: int, capacity: int
) -> None:
    workers = Workers(least, least + elastic)
    hopeless = data.draw(st.sets(st.sampled_from([n.name for n in nodes]), max_size=2))
    losses = {n.name: data.draw(st.integers(0, 2)) for n in nodes}
    states: dict[str, State] = {n.name: "open" for n in nodes}
    taken: dict[str, int] = {}
    for _ in range(4 * len(nodes)):
        if is_over(nodes, states):
            break
        for name in next_starts(nodes, states, capacity - sum(taken.values()), workers):
            assert states[name] == "open", "it was started while it was live, or after its end"
            assert all(states[p] == "finished" for p in ancestors(nodes, name))
            states[name] = "live"
            taken[name] = min(capacity - sum(taken.values()), workers.most)
            assert taken[name] >= workers.least
        assert taken, "nothing is carried out, though it isn't over"
        ending = data.draw(st.sampled_from(sorted(taken)))
        del taken[ending]
        losses[ending] -= 1
        states[ending] = "open" if losses[ending] >= 0 else "failed" if ending in hopeless else "finished"
    assert is_over(nodes, states)
    lost = {n.name for n in nodes if ancestors(nodes, n.name) & hopeless}
    assert set(kept_back(nodes, states)) == lost
    assert {name for name, state in states.items() if state == "finished"} == set(losses) - lost - hopeless


def test_what_makes_the_same_does_not_run_side_by_side() -> None:
    """Evaluations that share posteriors would compute them twice; one after the other, the second finds them."""
    runs = [Node("d"), Node("e")]
    asked = [
        Request(("d",), "multicrop"), Request(("d",), "both"), Request(("e",), "both"), Request(("d",), "dense"),
        Request(("d", "e"), "both", fuse=True),
    ]  # fmt: skip
    nodes = [*runs, *(Evaluation(request).node for request in asked)]
    names = [node.name for node in nodes[2:]]
    states: dict[str, State] = {"d": "finished", "e": "finished", **dict.fromkeys(names, "open")}
    started = []
    while "open" in states.values():
        starts = next_starts(nodes, states, 100, Workers(1, 1))
        made = [thing for n in nodes if n.name in starts for thing in n.makes]
        assert starts
        assert len(made) == len(set(made))
        started.append([names.index(name) for name in starts])
        assert next_starts(nodes, states | dict.fromkeys(starts, "live"), 100, Workers(1, 1)) == []
        states |= dict.fromkeys(starts, "finished")
    assert started == [[0, 2, 3], [1], [4]]
    assert {m: Request(("d",), m).passes for m in PASSES} == {
        m: {f"d/{one}" for one in passes} for m, passes in PASSES.items()
    }


def test_the_longest_chain_goes_first() -> None:
    nodes = [
        Node("a", (), 3), Node("short", ("a",), 9), Node("long", ("a",), 5), Node("longer", ("long",), 5),
    ]  # fmt: skip
    assert critical_paths(nodes) == {"a": 13, "short": 9, "long": 10, "longer": 5}
    states: dict[str, State] = {"a": "finished", "short": "open", "long": "open", "longer": "open"}
    assert next_starts(nodes, states, 4, Workers(4, 4)) == ["long"]
    assert next_starts(nodes, states, 8, Workers(4, 4)) == ["long", "short"]
    assert next_starts(nodes, states, 8, Workers(2, 8)) == ["long"], "an elastic run takes what there is"
    assert next_starts(nodes, states, 3, Workers(4, 4)) == []
