"""The results tables against what the papers print, and the cells that a net fills."""

import pytest

from alexvgg.recipes import JITTER, RECIPES
from alexvgg.results.paper import TABLES, PaperNet, cells


def test_every_row_has_its_recipe_and_the_papers_test_scales() -> None:
    assert {table: len(rows) for table, rows in TABLES.items()} == {
        "table3": 12, "table4": 10, "table5": 6, "table6": 4, "table7": 11, "alexnet": 4,
    }  # fmt: skip
    for table, rows in TABLES.items():
        for row in rows:
            assert row.nets or row.title
            assert row.top1 is not None or row.top5 is not None
            for net in row.nets:
                recipe = net.recipe
                assert (recipe.model, recipe.scale) == (net.model, net.train_scale)
                assert net.test_scales in recipe.test_scales
                if net.train_scale == JITTER:
                    assert net.test_scales in ((384,), (256, 384, 512))
                elif len(net.test_scales) == 3:
                    s = net.train_scale
                    assert isinstance(s, int)
                    assert net.test_scales == (s - 32, s, s + 32)
                else:
                    assert net.test_scales == (net.train_scale,)
            if table in ("table3", "table4", "table5"):
                assert len(row.nets) == 1
                assert (len(row.nets[0].test_scales) == 1) == (table == "table3")


def test_what_fills_the_rows_of_several_nets() -> None:
    seven, dense, multicrop, both = TABLES["table6"]
    assert sorted((n.model, n.train_scale) for n in seven.nets if n.train_scale != JITTER) == [
        ("vgg_c", 256), ("vgg_c", 384), ("vgg_d", 256), ("vgg_d", 384), ("vgg_e", 256), ("vgg_e", 384),
    ]  # fmt: skip
    three = (256, 384, 512)
    assert PaperNet("vgg_d", JITTER, three) in seven.nets
    for row, method in ((dense, "dense"), (multicrop, "multicrop"), (both, "both")):
        assert row.method == method
        assert row.nets == (PaperNet("vgg_d", JITTER, three), PaperNet("vgg_e", JITTER, three))
    five = TABLES["alexnet"][1]
    assert [n.recipe for n in five.nets] == [RECIPES["alexnet-s256"]] * 5


def test_tables_that_share_a_row_agree() -> None:
    printed: dict[object, object] = {}
    for table, rows in TABLES.items():
        for row in rows:
            key = (row.nets or row.title, row.method)
            assert printed.setdefault(key, (row.top1, row.top5)) == (row.top1, row.top5), (table, row)


def document(method: str, scales: tuple[int, ...], top1: float | None, top5: float | None) -> dict[str, object]:
    members = [{"run": "a", "weights": "", "test_scales": list(scales)}]
    return {"method": method, "members": members, "top1_error": top1, "top5_error": top5}


def test_cells_stand_beside_the_papers() -> None:
    three = (256, 384, 512)
    documents = [document("dense", (384,), 20.0, 5.0), document("both", three, 19.0, 4.0)]
    assert cells({"a": "vgg_e-jitter"}, documents) == pytest.approx({
        "table3/top1_error": 20.0, "paper/table3/top1_error": 25.5, "delta/table3/top1_error": -5.5,
        "table3/top5_error": 5.0, "paper/table3/top5_error": 8.0, "delta/table3/top5_error": -3.0,
        "table5/both/top1_error": 19.0, "paper/table5/both/top1_error": 24.4, "delta/table5/both/top1_error": -5.4,
        "table5/both/top5_error": 4.0, "paper/table5/both/top5_error": 7.1, "delta/table5/both/top5_error": -3.1,
        "table7/top1_error": 19.0, "paper/table7/top1_error": 24.4, "delta/table7/top1_error": -5.4,
        "table7/top5_error": 4.0, "paper/table7/top5_error": 7.1, "delta/table7/top5_error": -3.1,
    })  # fmt: skip


def test_one_net_fills_the_same_row_of_two_tables() -> None:
    found = cells({"a": "vgg_d-jitter"}, [document("dense", (256, 384, 512), 19.0, 4.0)])
    assert found["table4/top1_error"] == found["table5/dense/top1_error"] == 19.0


def test_an_error_of_no_image_is_no_cell() -> None:
    assert cells({"a": "vgg_e-jitter"}, [document("dense", (384,), None, None)]) == {}
    assert cells({"a": "vgg_e-jitter"}, [document("multicrop", (384,), 1.0, 1.0)]) == {}


def test_cells_of_fused_nets() -> None:
    members = [{"run": run, "weights": "", "test_scales": [256, 384, 512]} for run in ("a", "b")]
    fused = {"method": "both", "members": members, "top1_error": 3.0, "top5_error": 1.0}
    got = cells({"a": "vgg_e-jitter", "b": "vgg_d-jitter"}, [fused])
    assert {k: v for k, v in got.items() if not k.startswith(("paper", "delta"))} == {
        "table6/both/top1_error": 3.0, "table6/both/top5_error": 1.0,
        "table7/top1_error": 3.0, "table7/top5_error": 1.0,
    }  # fmt: skip
    assert cells({"a": "vgg_e-jitter", "b": "vgg_e-jitter"}, [fused]) == {}
    assert cells({"a": "vgg_e-jitter"}, [fused]) == {}, "b is gone"


def test_one_net_five_times_fills_no_cell() -> None:
    member = {"run": "a", "weights": "", "test_scales": [256]}
    five = {"method": "tencrop", "members": [member] * 5, "top1_error": 3.0, "top5_error": 1.0}
    assert cells({"a": "alexnet-s256"}, [five]) == {}


def test_the_order_of_test_scales_is_none() -> None:
    found = [cells({"a": "vgg_e-jitter"}, [document("dense", s, 3.0, 1.0)]) for s in ((256, 384, 512), (512, 384, 256))]
    assert found[0] == found[1] != {}
