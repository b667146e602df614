"""What fills each table: which runs, which evaluations beside those that training does."""

import pytest

from alexvgg.campaign.tables import TARGETS, plan_rows, rows_of
from alexvgg.cli.reproduce import TARGETS as COMMAND_TARGETS
from alexvgg.config import RunSpec
from alexvgg.errors import InputError
from alexvgg.planning import Images
from alexvgg.recipes import GEOMETRIES
from alexvgg.request import Request

DIGITS, SMALL = Images("digits", 10, "f" * 64), GEOMETRIES["small"]


def plan(target: str, *rows: int, **overrides: str) -> tuple[list[RunSpec], list[Request]]:
    return plan_rows(rows_of(target, rows or None), DIGITS, SMALL, overrides)


@pytest.mark.parametrize(
    ("target", "runs", "evaluations"),
    [("table3", 12, 0), ("table4", 11, 0), ("table5", 7, 4), ("table6", 9, 4), ("table7", 9, 3), ("alexnet", 5, 1)],
)
def test_each_table_is_trained_and_evaluated_once(target: str, runs: int, evaluations: int) -> None:
    specs, requests = plan(target)
    assert (len(specs), len(requests)) == (runs, evaluations)
    seen: set[str] = set()
    for spec in specs:
        assert spec.parent is None or spec.parent.run in seen
        seen.add(spec.name)
    assert all(set(request.runs) <= seen for request in requests)


def test_all_tables_share_their_runs_and_evaluations() -> None:
    specs, requests = plan("all")
    assert len({s.name for s in specs}) == len(specs) == 17  # VGG's 12 and five AlexNets
    assert len({r.name for r in requests}) == len(requests) == 9


def test_one_row_needs_only_its_lineage() -> None:
    specs, requests = plan("table4", 1, 5)
    assert [s.recipe for s in specs] == ["vgg_a-s256", "vgg_b-s256", "vgg_d-s256"]
    assert requests == []


def test_a_net_that_stands_five_times_is_five_seeds() -> None:
    specs, (fused,) = plan("alexnet", 2, **{"train.seed": "3"})
    assert [s.train.seed for s in specs] == [3, 4, 5, 6, 7]
    assert fused == Request(tuple(s.name for s in specs), "tencrop", (256,), fuse=True)


def test_nets_of_different_scales_are_fused_at_their_own() -> None:
    specs, (fused,) = plan("table6", 1)
    assert fused.test_scales is None
    assert len(fused.runs) == 7
    own = {s.name: s.test_scales[-1] for s in specs}
    assert [own[r] for r in fused.runs[:3]] == [(224, 256, 288), (352, 384, 416), (256, 384, 512)]


def test_what_cannot_be_reproduced_is_refused() -> None:
    for arguments, sentence in (
        (("table3", [13]), "rows 1 to 12, no row 13"),
        (("table7", [4]), "GoogLeNet, 1 net, of other people"),
        (("all", [1]), "--rows belongs to one table"),
    ):
        with pytest.raises(InputError, match=sentence):
            rows_of(*arguments)
    with pytest.raises(InputError, match="test scales are the table's own"):
        plan("table3", test_scales="[[256]]")
    assert COMMAND_TARGETS == TARGETS
