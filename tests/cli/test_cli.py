"""The command line as a person meets it: help, exit codes, sentences, JSON."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from alexvgg.cli import main
from alexvgg.config import to_dict
from alexvgg.data.shards import open_dataset
from alexvgg.data.store import open_store
from alexvgg.planning import Images, images_of, plan_runs
from alexvgg.recipes import GEOMETRIES, RECIPES

ALEXVGG = str(Path(sys.executable).with_name("alexvgg"))


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, arguments)


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty project folder: no profile, no local cluster."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("ALEXVGG_PROFILE", raising=False)
    return tmp_path


def commands(group: click.Group, prefix: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    for name, command in group.commands.items():
        yield (*prefix, name)
        if isinstance(command, click.Group):
            yield from commands(command, (*prefix, name))


@pytest.mark.parametrize("command", list(commands(main)), ids=" ".join)
def test_every_command_has_help_with_an_example(command: tuple[str, ...]) -> None:
    result = run(*command, "--help")
    assert result.exit_code == 0
    if "COMMAND [ARGS]" not in result.output:
        assert f"alexvgg {' '.join(command)}" in result.output.split("Example", 1)[1]


def test_help_answers_in_300_ms() -> None:
    def seconds() -> float:
        began = time.perf_counter()
        subprocess.run([ALEXVGG, "--help"], check=True, stdout=subprocess.DEVNULL)
        return time.perf_counter() - began

    seconds()
    assert min(seconds() for _ in range(5)) < 0.3


def test_models_json() -> None:
    rows = {row["name"]: row for row in json.loads(run("models", "--json").stdout)}
    assert rows["vgg_e"] == {
        "name": "vgg_e", "weight_layers": 19, "params": 143_667_240, "crop": 224, "macs": 19_632_062_464,
        "paper_params_m": 144,
    }  # fmt: skip
    assert rows["alexnet"]["params"] == 60_965_224
    assert (rows["fourlayer_tanh"]["crop"], rows["fourlayer_tanh"]["params"]) == (32, 656_328)


def test_recipe_says_what_the_paper_found_of_a_net_beside_its_tables() -> None:
    assert run("recipe", "alexnet_no_lrn").stdout.splitlines()[-1] == (
        "alexnet_no_lrn-s256: AlexNet 3.3: LRN lowers the errors by 1.4 and 1.2 %"
    )


def test_recipe_json_lists_parents_first() -> None:
    document = json.loads(run("recipe", "table4", "--json").stdout)
    assert len(document["rows"]) == 10
    assert len(document["runs"]) == 11
    seen: set[str | None] = {None}
    for row in document["runs"]:
        assert row["parent"] in seen
        seen.add(row["name"])


def test_dry_run_lists_all_that_would_start(elsewhere: Path) -> None:
    result = run("submit", "--model", "vgg_e", "--scale", "jitter", "--nodes", "4", "--dry-run", "--json")
    assert result.exit_code == 0, result.output
    runs = json.loads(result.stdout)["runs"]
    assert [r["recipe"] for r in runs] == ["vgg_a-s256", "vgg_e-s256", "vgg_e-s384", "vgg_e-jitter"]
    assert [r["parent"] for r in runs] == [None, *(r["name"] for r in runs[:-1])]
    assert runs[-1]["scale"] == [256, 512]
    assert runs[-1]["resources"] == {"nodes": 4, "workers": 4, "gpus_per_worker": 0}
    assert runs[-1]["params"] > 0
    assert list(elsewhere.iterdir()) == []


def test_a_table_is_planned_with_its_evaluations(elsewhere: Path, golden: Callable[[str, str], None]) -> None:
    result = run("reproduce", "table5", "--nodes", "2:4", "--dry-run")
    assert result.exit_code == 0, result.output
    golden("reproduce_table5.txt", result.stdout)
    document = json.loads(run("reproduce", "table5", "--nodes", "2:4", "--dry-run", "--json").stdout)
    assert document["target"].startswith("table5-")
    assert [r["name"] in result.stdout for r in (*document["runs"], *document["evaluations"])] == [True] * 11
    assert document["runs"][0]["resources"] == {
        "nodes": 4, "workers": 4, "gpus_per_worker": 0, "min_nodes": 2, "min_workers": 2,
    }  # fmt: skip


def test_a_table_is_refused_with_other_test_scales(elsewhere: Path) -> None:
    result = run("reproduce", "table3", "--set", "test_scales=[[256]]", "--dry-run")
    assert result.exit_code == 2
    assert "a table's test scales are the table's own" in result.stderr


def test_dry_run_counts_the_exchange_over_a_known_link(elsewhere: Path) -> None:
    here = elsewhere.as_uri()
    assert run("data", "sample", "digits", f"{here}/d").exit_code == 0
    places = {"dashboard": "http://127.0.0.1:1", "storage": f"{here}/s", "dataset": f"{here}/d", "gpu": "H100"}
    toml = "".join(f'{key} = "{value}"\n' for key, value in places.items())
    (elsewhere / "alexvgg.toml").write_text(f"[profile.x]\ngpus_per_node = 8\n{toml}")
    plan = ("submit", "--model", "vgg_e", "--init", "random", "--set", "train.epochs=70000", "--profile", "x")

    def last(*more: str) -> str:
        return run(*plan, "--dry-run", *more).stdout.splitlines()[-1]

    def hours(*more: str) -> float:
        return float(json.loads(run(*plan, "--dry-run", "--json", *more).stdout)["estimate"]["hours"])

    assert "exchanging gradients and evaluating come on top" in last()
    assert "exchanging gradients (--link 25Gb counts that) and evaluating" in last("--nodes", "4")
    assert hours("--nodes", "4") == pytest.approx(hours() / 4)
    assert "evenly" not in run(*plan, "--dry-run", "--nodes", "4").stdout
    slow = ("--nodes", "4", "--link", "25Gb")
    assert hours(*slow) > hours()
    assert last(*slow).endswith(" come on top. One node, without this link, takes about 59 min: 4 are slower.")
    assert last("--nodes", "4", "--link", "400Gb").endswith("takes about 59 min: 4 are 1.8 times as fast.")
    uneven = run(*plan, "--dry-run", "--nodes", "7").stdout.splitlines()[1]
    assert uneven.startswith("A step can't be shared evenly among 56 workers: 43% of their time they wait")
    assert uneven.endswith("and 4 nodes would be as fast.")
    assert hours("--nodes", "7") == pytest.approx(hours("--nodes", "4"))
    assert "as fast" not in run(*plan, "--dry-run", "--nodes", "3").stdout, "of three nodes none is too many"
    one = run(*plan, "--dry-run", "--link", "25Gb").stdout
    assert "gradients by all-reduce: 977.3 MB a step from each rank" in one, "its GPUs don't use the link"
    assert last("--nodes", "2", "--link", "800Gb").endswith("; starting workers and evaluating come on top.")


def test_dry_run_says_how_gradients_travel(elsewhere: Path) -> None:
    """Between the nodes of a profile; the local cluster's are one machine."""
    submit = ("submit", "--model", "vgg_d", "--init", "random", "--nodes", "4", "--dry-run", "--link", "25Gb")
    assert "vgg_d: gradients by all-reduce: 3.2 MB" in (local := run(*submit).stdout)
    assert local.count("gradients by") == 1
    here = elsewhere.as_uri()
    assert run("data", "sample", "digits", f"{here}/d").exit_code == 0
    places = {"dashboard": "http://127.0.0.1:1", "storage": f"{here}/s", "dataset": f"{here}/d"}
    toml = "".join(f'{key} = "{value}"\n' for key, value in places.items())
    (elsewhere / "alexvgg.toml").write_text(f"[profile.x]\ngpus_per_node = 8\n{toml}")
    (run_,) = json.loads(run(*submit, "--profile", "x", "--json").stdout)["runs"]
    assert run_["exchange"]["exchange"] == "factors"
    assert run_["exchange"]["layers"] == ["fc6", "fc7"], "the digits' fc8 has 10 outputs"
    assert run_["exchange"]["bytes"] < run_["exchange"]["allreduce_bytes"] / 2
    assert run_["exchange"]["seconds"] == pytest.approx(8 * run_["exchange"]["bytes"] / 25e9)


def test_random_init_needs_no_shallow_parent(elsewhere: Path) -> None:
    result = run("submit", "--model", "vgg_e", "--scale", "384", "--init", "random", "--dry-run", "--json")
    runs = json.loads(result.stdout)["runs"]
    assert [(r["recipe"], r["how"]) for r in runs] == [("vgg_e-s256", "gaussian"), ("vgg_e-s384", "copy")]


def test_results_of_a_local_cluster_are_read_while_it_is_down(elsewhere: Path) -> None:
    dataset = elsewhere / ".alexvgg/s3/alexvgg/datasets/digits"
    assert run("data", "sample", "digits", dataset.as_uri()).exit_code == 0
    for command in (
        ["table", "table3"],
        ["status"],
        ["list"],
        ["data", "stat"],
        ["data", "verify"],
        ["config", "show"],
    ):
        result = run(*command)
        assert result.exit_code == 0, f"{command}: {result.output}"
    assert "Only what the storage says: no local cluster of this folder is up" in run("status").stderr
    assert run("submit", "--model", "vgg_e", "--dry-run").stdout.startswith("Plan: 2 of 2 runs to train")
    for command in (["logs"], ["stop"], ["resume"], ["evaluate", "vgg_e", "--nodes", "2"]):
        result = run(*command)
        assert result.exit_code == 2
        assert "start one with `alexvgg cluster up" in result.stderr


def test_a_submission_starts_from_any_finished_run(elsewhere: Path) -> None:
    here = elsewhere.as_uri()
    assert run("data", "sample", "digits", f"{here}/d").exit_code == 0
    submit = ("submit", "--storage", f"{here}/s", "--dataset", f"{here}/d", "--dry-run", "--json")

    images, store = images_of(open_dataset(open_store(f"{here}/d"))), open_store(f"{here}/s")
    mine = plan_runs([RECIPES["vgg_a-s256"]], images, GEOMETRIES["small"], overrides={"train.lr": "0.02"})[-1]
    store.put(f"runs/{mine.name}/spec.json", json.dumps(to_dict(mine)).encode())

    def answer(model: str, scale: str = "256", parent: str = mine.name) -> Result:
        return run(*submit, "--model", model, "--scale", scale, "--parent", parent)

    assert "there is no 'nobody'" in answer("vgg_e", parent="nobody").stderr
    store.put("runs/begun/attempts/1.stop.json", b"{}")
    assert "begun is planned but isn't finished" in answer("vgg_e", parent="begun").stderr
    assert "only final weights" in answer("vgg_e").stderr
    store.put(f"runs/{mine.name}/final/record.json", b'{"sha256": "0"}')
    first, second = json.loads(answer("vgg_e", "384").stdout)["runs"]
    assert (first["recipe"], first["parent"], first["how"]) == ("vgg_e-s256", mine.name, "transplant")
    assert second["parent"] == first["name"]
    assert "no run on the way there starts from a vgg_a" in answer("vgg_a").stderr
    alone = run(*submit, "--model", "vgg_e", "--parent", mine.name, "--init", "random")
    assert "no run on the way there starts from a vgg_a, as --init random leaves the parents of" in alone.stderr


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--model", "vgg_f"], "no model 'vgg_f'; did you mean"),
        (["--model", "vgg_e", "--nodes", "0"], "'0' is no number of nodes"),
        (["--model", "vgg_e", "--nodes", "8:2"], "'8:2' is no number of nodes; write for example 4, or 2:8"),
        (["--model", "vgg_e", "--scale", "128"], "S=128 is smaller than the 224-pixel crop"),
        (["--model", "vgg_e", "--set", "data.train_scale=200"], "S=200 is smaller than the 224-pixel crop"),
        (["--model", "vgg_b", "--scale", "384"], "the paper trains vgg_b at S = 256"),
        (["--model", "vgg_e", "--set", "train.learning_rate=1"], "no setting 'train.learning_rate'"),
        (["--model", "vgg_e", "--set", "train.lr"], "has no value"),
        (["--model", "vgg_e", "--set", "train.lr=fast"], "train.lr"),
        (["--model", "vgg_e", "--set", "recipe=x"], "follows from the recipe"),
        (["--model", "vgg_e", "--geometry", "tiny"], "no geometry 'tiny'"),
        (["--model", "vgg_e", "--profile", "lab"], "no alexvgg.toml here"),
    ],
)
def test_bad_input_is_answered_by_a_sentence(elsewhere: Path, arguments: list[str], sentence: str) -> None:
    result = run("submit", *arguments)
    assert result.exit_code == 2
    assert sentence in result.stderr
    assert "Traceback" not in result.output
    assert list(elsewhere.iterdir()) == [], "something was started"


def test_profile_with_unknown_key_is_refused(elsewhere: Path) -> None:
    (elsewhere / "alexvgg.toml").write_text(
        '[profile.lab]\ndashbord = "http://x"\nstorage = "s3://b"\ndataset = "s3://b"'
    )
    result = run("submit", "--model", "vgg_a", "--profile", "lab")
    assert result.exit_code == 2
    assert "alexvgg.toml: dashbord is not a setting of [profile.lab]; did you mean 'dashboard'?" in result.stderr


def test_no_local_cluster_names_the_command_that_starts_it(elsewhere: Path) -> None:
    result = run("status")
    assert result.exit_code == 2
    assert "alexvgg cluster up" in result.stderr


def test_a_folder_in_the_place_of_the_settings_is_named(elsewhere: Path) -> None:
    (elsewhere / "alexvgg.toml").mkdir()
    result = run("config", "show")
    assert (result.exit_code, result.stderr) == (1, "alexvgg: alexvgg.toml: Is a directory\n")


def test_dataset_that_is_not_there(elsewhere: Path) -> None:
    here = elsewhere.as_uri()
    places = {"dashboard": "http://127.0.0.1:1", "storage": f"{here}/s", "dataset": f"{here}/d"}
    toml = "".join(f'{key} = "{value}"\n' for key, value in places.items())
    (elsewhere / "alexvgg.toml").write_text(f"[profile.x]\n{toml}")
    result = run("submit", "--model", "vgg_a", "--profile", "x")
    assert result.exit_code == 2
    assert "no dataset at" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ([], "Missing argument 'RUN"),
        (["a", "--test-scales", "256,192"], "Q=192 is smaller than the 224-pixel crop"),
        (["a", "--test-scales", "256;384"], "isn't a list of numbers; write e.g. 256,384,512"),
        (["a", "--test-scales", "256,256"], "a test scale stands twice"),
        (["a", "a"], "a run stands twice"),
        (["a", "--fuse"], "fusing needs at least two runs"),
        (["a", "--wait"], "--wait belongs to --nodes"),
        (["a", "--method", "sparse"], "'sparse' is not one of"),
        (["a"], "no local cluster of this folder is up"),
        (["a", "--profile", "lab"], "no alexvgg.toml here"),
    ],
)
def test_an_evaluation_that_makes_no_sense_is_refused(elsewhere: Path, arguments: list[str], sentence: str) -> None:
    result = run("evaluate", *arguments)
    assert result.exit_code == 2
    assert sentence in result.stderr
    assert "Traceback" not in result.output


def test_the_tables_of_the_command_line_are_those_there_are() -> None:
    from alexvgg.cli import evaluate, table
    from alexvgg.evaluation.scoring import PASSES
    from alexvgg.results.formats import FORMATS, TITLES
    from alexvgg.results.paper import TABLES

    module = sys.modules[table.callback.__module__]  # type: ignore[union-attr]
    assert tuple(TABLES) == tuple(TITLES) == module.NAMES
    assert (*FORMATS, "json") == module.FORMAT_NAMES
    assert tuple(PASSES) == sys.modules[evaluate.callback.__module__].METHODS  # type: ignore[union-attr]


def test_a_row_of_five_nets_takes_five_seeds() -> None:
    first, head, run_, _ = run("recipe", "alexnet").stdout.splitlines()
    assert first == "alexnet: 2 rows from 5 runs"
    assert (head.split()[-1], run_.split()[-1]) == ("seeds", "5")
    assert [r["seeds"] for r in json.loads(run("recipe", "table6", "--json").stdout)["runs"]] == [1] * 9


def test_recipe_of_a_fusion_lists_every_net_once() -> None:
    document = json.loads(run("recipe", "table6", "--json").stdout)
    assert [len(row["nets"]) for row in document["rows"]] == [7, 2, 2, 2]
    names = [r["name"] for r in document["runs"]]
    assert len(names) == len(set(names)) == 9


def test_synthetic_images_are_packed_as_asked(elsewhere: Path) -> None:
    result = run("data", "sample", "synthetic", elsewhere.as_uri(), "--images", "7", "--val", "3", "--classes", "2")
    assert result.exit_code == 0, result.output
    assert "7 train, 3 validation" in result.stdout
    assert len(json.loads((elsewhere / "dataset.json").read_text())["classes"]) == 2
    for there, problem in ((None, "holds another dataset"), ("{", "dataset.json")):
        if there is not None:
            (elsewhere / "dataset.json").write_text(there)
        result = run("data", "sample", "digits", elsewhere.as_uri())
        assert result.exit_code == 2
        assert problem in result.stderr


def test_digits_refuse_what_belongs_to_synthetic_images(elsewhere: Path) -> None:
    result = run("data", "sample", "digits", elsewhere.as_uri(), "--shard-bytes", "100")
    assert result.exit_code == 2
    assert "--shard-bytes belongs to `alexvgg data sample synthetic`" in result.stderr
    assert list(elsewhere.iterdir()) == []


def test_manifests_that_were_edited_are_kept(elsewhere: Path) -> None:
    render = ("cluster", "render", "skypilot")
    assert run(*render).exit_code == run(*render).exit_code == 0, "the same again"
    file = sorted((elsewhere / "alexvgg-skypilot").glob("*.yaml"))[0]
    text = file.read_text()
    file.write_text(f"{text}# mine\n")
    refused = run(*render)
    assert refused.exit_code == 2
    assert f"{file.name} in alexvgg-skypilot would be overwritten" in refused.stderr
    assert file.read_text().endswith("# mine\n")
    assert run(*render, "--force").exit_code == 0
    assert file.read_text() == text


def test_output_is_plain_when_it_is_no_terminal() -> None:
    environment = {**os.environ, "NO_COLOR": "1"}
    out = subprocess.run([ALEXVGG, "recipe", "table4"], env=environment, check=True, capture_output=True, text=True)
    assert "\x1b" not in out.stdout
    assert out.stdout.startswith("table4: 10 rows from 11 runs\n")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("reproduce", "table4", "--set", "train.seed=abc", "--dry-run"), "train.seed=abc: a table's nets have whole"),
        (("submit", "--model", "vgg_a", "--set", "test_scales=[]", "--dry-run"), "test_scales has no Q to test at"),
        (("report", "-o", "nowhere/report.html"), "there is no folder nowhere"),
        (("report", "-o", "r" * 300), "can't be written: File name too long"),
        (("report", "-o", "/proc/report.html"), "/proc/report.html can't be written"),
        (("cluster", "render", "aws", "-o", "/etc/hostname"), "is a file"),
        (("submit", "--model", "vgg16", "--dry-run"), "torchvision's vgg16 is 'vgg_d' here"),
        (("submit", "--model", "vgg_a", "--nodes", "100"), "100 workers are more than the 64 among which"),
        (("submit", "--model", "vgg_a", "--price-per-gpu-hour", "2"), "here are no GPUs to pay for"),
        (("submit", "--model", "vgg_a", "--nodes", "65", "--dry-run"), "65 workers are more than the 64 among which"),
        (("submit", "--model", "vgg_a", "--set", "test_scales=[[5000]]", "--dry-run"), "Q=5000 is over 4096"),
        (("data", "verify", "file:///tmp", "--report", "nowhere/report.json"), "there is no folder nowhere"),
        (("submit", "--model", "vgg_a", "--dry-run", "--wait"), "--dry-run starts nothing that --wait could wait for"),
        (("reproduce", "table3", "--dry-run", "--wait"), "--dry-run starts nothing that --wait could wait for"),
        (("table", "table3", "--json", "--format", "csv"), "--json and --format csv ask for two formats"),
        (("status", "--watch", "--json"), "--watch shows it to people and --json to programs"),
        (("submit", "--model", "vgg_a", "--cache-bytes", "1GB"), "--cache-bytes bounds the cache in --cache FOLDER"),
        (("data", "bench", "--cache-bytes", "1GB"), "--cache-bytes bounds the cache in --cache FOLDER"),
        (("evaluate", "a", "--insecure"), "--insecure belongs to --nodes N"),
        (("logs", "--attempt", "2"), "--attempt and --rank are of a run; name it"),
        (("logs", "--rank", "0", "-f"), "--attempt and --rank are of a run; name it"),
        (("predict", "a", __file__, "--test-scales", "256,256"), "a test scale stands twice in 256,256"),
        (("submit", "--model", "vgg_a", "--dry-run", "--price-per-gpu-hour", "2"), "here are no GPUs to pay for"),
        (("submit", "--model", "vgg_a", "--dry-run", "--price-per-gpu-hour", "2", "--json"), "no GPUs to pay for"),
        (("submit", "--model", "vgg_e", "--scale", "²"), "the paper trains vgg_e at S = 256, 384, jitter, not at '²'"),
        (("data", "bench", "--prefetch-bytes", "."), "'.' is no number of bytes"),
        (("data", "bench", "--prefetch-bytes", "9" * 400 + "TiB"), "less than 2^63"),
        (("data", "bench", "--seconds", "inf"), "'inf' is no finite number"),
        (("plan", "scaling", "--model", "vgg_a", "--tflops", "nan", "--json"), "'nan' is no finite number"),
        (("plan", "scaling", "--model", "vgg_a", "--link", "9" * 400 + "Gb"), "is no link"),
        (("submit", "--model", "vgg_a", "--price-per-gpu-hour", "nan", "--dry-run", "--json"), "is no finite number"),
        (("submit", "--model", "vgg_a", "--checkpoint-minutes", "inf", "--dry-run"), "'inf' is no finite number"),
        (("submit", "--model", "vgg_a", "--set", f"train.seed={10**30}"), "train.seed: "),
        (("submit", "--model", "vgg_a", "--set", f"train.seed={1 << 63}"), "train.seed: Input should be less than"),
        (("submit", "--model", "vgg_a", "--set", "train.lr=Infinity"), "train.lr: Input should be a finite number"),
        (("submit", "--model", "vgg_a", "--set", "train.weight_decay=Infinity"), "weight_decay: Input should be a fin"),
        (("submit", "--model", "vgg_a", "--set", "init.std=NaN"), "init.std: Input should be a finite number"),
        (("submit", "--model", "vgg_a", "--set", "data.colour_std=1e999"), "data.colour_std: Input should be a finite"),
        (("submit", "--model", "vgg_a", "--set", "data.train_scale=[256,1000000]"), "S=1000000 is over 4096"),
    ],
)
def test_what_cannot_work_is_said_first(elsewhere: Path, arguments: tuple[str, ...], told: str) -> None:
    result = run(*arguments)
    assert result.exit_code == 2
    assert told in result.stderr


def test_a_dashboard_without_a_scheme_is_refused(elsewhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (elsewhere / "alexvgg.toml").write_text('[profile.x]\nstorage = "file:///s"\ndataset = "file:///d"\n')
    for url in ("ray-head", "ray-head:8265", "http://ray-head:port", "ftp://ray-head"):
        monkeypatch.setenv("ALEXVGG_DASHBOARD", url)
        result = run("status", "--profile", "x")
        assert result.exit_code == 2
        assert f"the profile's dashboard is {url!r}; write it as http://HOST:PORT" in result.stderr


def test_a_login_in_a_url_is_refused_before_anything_is_asked(elsewhere: Path) -> None:
    here = elsewhere.as_uri()
    places = {"dashboard": "http://127.0.0.1:1", "storage": f"{here}/s", "dataset": f"{here}/d"}
    toml = "".join(f'{key} = "{value}"\n' for key, value in places.items())
    (elsewhere / "alexvgg.toml").write_text(f"[profile.x]\n{toml}")
    train = ("train", "vgg_a-s256", "--dataset", f"{here}/d", "--storage", f"{here}/s")
    for command in ((*train, "--mlflow"), ("mlflow", "sync", "--profile", "x", "--url")):
        for login in ("user:canary", "canary"):
            result = run(*command, f"http://{login}@127.0.0.1:1")
            assert result.exit_code == 2
            assert "the URL of mlflow holds a user name or a password" in result.stderr
            assert "canary" not in result.output


def test_files_of_others_in_the_storage_harm_nothing(elsewhere: Path) -> None:
    store = open_store((elsewhere / ".alexvgg/s3/alexvgg").as_uri())
    assert run("data", "sample", "digits", f"{store.url}/datasets/digits").exit_code == 0
    spec = plan_runs([RECIPES["vgg_a-s256"]], Images("digits", 10, "f" * 64), GEOMETRIES["small"])[-1]
    for folder in (spec.name, f"{spec.name}/backup"):
        store.put(f"runs/{folder}/spec.json", json.dumps(to_dict(spec)).encode())
    # As an import leaves it: no start, no step.
    store.put(f"runs/{spec.name}/journal.jsonl", b'{"event": "final", "step": 0, "time": 1.0, "metrics": {}}\n')
    store.put(f"runs/{spec.name}/final/record.json", b'{"sha256": "0"}')
    for key in ("runs/.DS_Store", "fusions/README", "campaigns/notes.txt", "campaigns/a/b/plan.json"):
        store.put(key, b"mine")
    shown = run("status")
    assert shown.exit_code == 0, shown.output
    assert f"{spec.name}  finished" in shown.stdout
    for command in (["list"], ["table", "table3"]):
        assert run(*command).exit_code == 0
