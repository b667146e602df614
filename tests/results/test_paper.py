"""The results tables against what the papers print, and the cells that a net fills."""

import pytest

from alexvgg.recipes import JITTER, RECIPES, scale_name
from alexvgg.results.paper import ABLATIONS, TABLES, PaperNet, PaperRow, cells


def test_every_row_has_its_recipe_and_the_papers_test_scales() -> None:
    assert {table: len(rows) for table, rows in TABLES.items()} == {
        "table3": 12, "table4": 10, "table5": 6, "table6": 4, "table7": 15, "alexnet": 4, "ablations": 11,
    }  # fmt: skip
    for table, rows in TABLES.items():
        for row in rows:
            assert row.nets or row.title
            assert ((row.top1, row.top5, row.top5_test) != (None, None, None)) == (table != ABLATIONS)
            for net in row.nets:
                recipe = net.recipe
                assert (recipe.target, recipe.scale) == (net.model, net.train_scale)
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


# Top-1, top-5 and, on the test set, top-5 errors as the papers print them, read off by someone else than TABLES.
PRINTED = {
    "table3": """
        vgg_a s256 256 dense 29.6 10.4 -
        vgg_a_lrn s256 256 dense 29.7 10.5 -
        vgg_b s256 256 dense 28.7 9.9 -
        vgg_c s256 256 dense 28.1 9.4 -
        vgg_c s384 384 dense 28.1 9.3 -
        vgg_c jitter 384 dense 27.3 8.8 -
        vgg_d s256 256 dense 27.0 8.8 -
        vgg_d s384 384 dense 26.8 8.7 -
        vgg_d jitter 384 dense 25.6 8.1 -
        vgg_e s256 256 dense 27.3 9.0 -
        vgg_e s384 384 dense 26.9 8.7 -
        vgg_e jitter 384 dense 25.5 8.0 -
    """,
    "table4": """
        vgg_b s256 224,256,288 dense 28.2 9.6 -
        vgg_c s256 224,256,288 dense 27.7 9.2 -
        vgg_c s384 352,384,416 dense 27.8 9.2 -
        vgg_c jitter 256,384,512 dense 26.3 8.2 -
        vgg_d s256 224,256,288 dense 26.6 8.6 -
        vgg_d s384 352,384,416 dense 26.5 8.6 -
        vgg_d jitter 256,384,512 dense 24.8 7.5 -
        vgg_e s256 224,256,288 dense 26.9 8.7 -
        vgg_e s384 352,384,416 dense 26.7 8.6 -
        vgg_e jitter 256,384,512 dense 24.8 7.5 -
    """,
    "table5": """
        vgg_d jitter 256,384,512 dense 24.8 7.5 -
        vgg_d jitter 256,384,512 multicrop 24.6 7.5 -
        vgg_d jitter 256,384,512 both 24.4 7.2 -
        vgg_e jitter 256,384,512 dense 24.8 7.5 -
        vgg_e jitter 256,384,512 multicrop 24.6 7.4 -
        vgg_e jitter 256,384,512 both 24.4 7.1 -
    """,
    "table6": """
        7 nets: D, C, E at 256 and 384, D jitter (paper: FC tuned); dense 24.7 7.5 7.3
        2 nets: D and E, jitter; dense 24.0 7.1 7.0
        2 nets: D and E, jitter; multicrop 23.9 7.2 -
        2 nets: D and E, jitter; both 23.7 6.8 6.8
    """,
    "table7": """
        VGG, 2 nets; both 23.7 6.8 6.8
        VGG, 1 net; both 24.4 7.1 7.0
        VGG, 7 nets (paper: D jitter's FC tuned); dense 24.7 7.5 7.3
        GoogLeNet, 1 net - 7.9 7.9
        GoogLeNet, 7 nets - 6.7 6.7
        MSRA, 11 nets - - 8.1
        MSRA, 1 net 27.9 9.1 9.1
        Clarifai, several nets - - 11.7
        Clarifai, 1 net - - 12.5
        Zeiler & Fergus, 6 nets 36.0 14.7 14.8
        Zeiler & Fergus, 1 net 37.5 16.0 16.1
        OverFeat, 7 nets 34.0 13.2 13.6
        OverFeat, 1 net 35.7 14.2 -
        AlexNet, 5 nets 38.1 16.4 16.4
        AlexNet, 1 net 40.7 18.2 -
    """,
    "alexnet": """
        1 CNN; tencrop 40.7 18.2 -
        5 CNNs; tencrop 38.1 16.4 16.4
        1 CNN* 39.0 16.6 -
        7 CNNs* 36.7 15.4 15.3
    """,
}


@pytest.mark.parametrize("table", sorted(TABLES.keys() - {ABLATIONS}))
def test_the_numbers_are_the_papers(table: str) -> None:
    def told(row: PaperRow) -> str:
        net = row.nets[0] if row.nets and not row.title else None
        place = f"{net.model} {scale_name(net.train_scale)} {','.join(map(str, net.test_scales))}" if net else row.title
        method = f"{';' if row.title else ''} {row.method}" if row.nets else ""
        errors = ("-" if e is None else f"{e:.1f}" for e in (row.top1, row.top5, row.top5_test))
        return f"{place}{method} {' '.join(errors)}"

    assert [told(row) for row in TABLES[table]] == [line.strip() for line in PRINTED[table].strip().splitlines()]


def document(method: str, scales: tuple[int, ...], top1: float | None, top5: float | None) -> dict[str, object]:
    members = [{"run": "a", "weights": "", "test_scales": list(scales)}]
    return {"method": method, "members": members, "top1_error": top1, "top5_error": top5}


def beside(documents: list[dict[str, object]], run: str = "vgg_e-jitter") -> dict[str, float]:
    """The cells of tables."""
    return {key: v for key, v in cells({"a": run}, documents).items() if not key.startswith("eval/")}


def test_whatever_a_net_was_evaluated_to_has_a_name() -> None:
    documents = [document("tencrop", (256,), 20.0, 5.0), document("dense", (384, 256), 19.0, None)]
    assert cells({"a": "alexnet_no_lrn-s256"}, documents) == {
        "eval/tencrop-q256/top1_error": 20.0, "eval/tencrop-q256/top5_error": 5.0,
        "eval/dense-q256-384/top1_error": 19.0,
    }  # fmt: skip


def test_cells_stand_beside_the_papers() -> None:
    three = (256, 384, 512)
    documents = [document("dense", (384,), 20.0, 5.0), document("both", three, 19.0, 4.0)]
    assert beside(documents) == pytest.approx({
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
    assert beside([document("multicrop", (384,), 1.0, 1.0)]) == {}


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
