"""`alexvgg data pack` and `data index` as a person meets them."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from made import ilsvrc, imagefolder

from alexvgg.cli import main
from alexvgg.data.shards import open_dataset
from alexvgg.data.store import open_store


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["data", *arguments])


def test_pack_says_what_it_made(tmp_path: Path) -> None:
    source, url = ilsvrc(tmp_path / "src"), (tmp_path / "out").as_uri()
    result = run("pack", str(source), url, "--shard-bytes", "12000", "--colour-images", "all", "--no-flip")
    assert result.exit_code == 0, result.output
    dataset = open_dataset(open_store(url))
    assert result.stdout.splitlines() == [
        f"{url}: 31 train images (0.00 GB), 15 val images (0.00 GB) in 10 shards",
        "5 classes with 6 to 7 training images each",
        f"fingerprint {dataset.fingerprint}",
    ]
    assert "packed 10 of 10 shards" in result.stderr
    assert (dataset.name, dataset.flip, len(dataset.classes)) == ("imagenet", False, 5)
    assert json.loads((tmp_path / "out" / "dataset.json").read_text())["colour_images"] == 31


def test_foreign_shards_get_names_and_classes(tmp_path: Path) -> None:
    source, folder = imagefolder(tmp_path / "src"), tmp_path / "out"
    assert run("pack", str(source), folder.as_uri()).exit_code == 0
    for name in ("dataset.json", "pack.json"):
        (folder / name).unlink()
    for index in (folder / "index").iterdir():
        index.unlink()
    classes = tmp_path / "classes.txt"
    classes.write_text("tench\ngoldfish\nsheepdog\nsaw\ntissue\n")
    result = run("index", folder.as_uri(), "--classes", str(classes), "--name", "five", "--val", "val-*")
    assert result.exit_code == 0, result.output
    dataset = open_dataset(open_store(folder.as_uri()))
    assert (dataset.name, dataset.classes[0], len(dataset.val)) == ("five", "tench", 15)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["pack", "SRC", "URL"], "holds no images that can be packed"),
        (["pack", "SRC/none", "URL"], "does not exist"),
        (["pack", "SRC", "URL", "--colour-images", "some"], "'some' is neither a number of images nor `all`"),
        (["pack", "SRC", "URL", "--shard-bytes", "0"], "0 is not in the range x>=1"),
        (["index", "URL"], "no shard matches --train '*train*.tar'; there is no tar at all"),
        (["index", "https://x/y"], "a storage URL"),
    ],
)
def test_bad_input_is_answered_by_a_sentence(arguments: list[str], sentence: str, tmp_path: Path) -> None:
    (tmp_path / "src").mkdir()
    words = {"SRC": str(tmp_path / "src"), "SRC/none": str(tmp_path / "none"), "URL": (tmp_path / "out").as_uri()}
    result = run(*(words.get(a, a) for a in arguments))
    assert result.exit_code == 2
    assert sentence in result.stderr
    assert not (tmp_path / "out").exists()
