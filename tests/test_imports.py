"""Imports only point down, and heavy libraries stay where they belong."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FILES = sorted(p for top in ("alexvgg", "jobs", "cluster") for p in (ROOT / top).rglob("*.py"))

# Who may import what, of our own modules. A module may also import from its own package.
BASE = {
    "alexvgg.exits", "alexvgg.errors", "alexvgg.columns", "alexvgg.keys", "alexvgg.repeating", "alexvgg.process",
}  # fmt: skip
STORAGE = {"alexvgg.data.store", "alexvgg.data.documents", "alexvgg.beats"}
CONFIG = BASE | {"alexvgg.architectures", "alexvgg.config", "alexvgg.recipes", "alexvgg.batch"}
PARTS = {
    "alexvgg.models", "alexvgg.init", "alexvgg.data", "alexvgg.evaluation", "alexvgg.engine", "alexvgg.tracking",
    "alexvgg.results.paper",
}  # fmt: skip
RUNS = {
    "alexvgg.runs", "alexvgg.run", "alexvgg.evaluate", "alexvgg.planning", "alexvgg.profiles", "alexvgg.results",
    "alexvgg.attempts", "alexvgg.lease", "alexvgg.request", "alexvgg.campaign", "alexvgg.scaling",
}  # fmt: skip
ALLOWED = {
    "alexvgg.exits": set(),
    "alexvgg.errors": {"alexvgg.exits"},
    "alexvgg.columns": set(),
    "alexvgg.keys": set(),
    "alexvgg.repeating": set(),
    "alexvgg.process": set(),
    "alexvgg.architectures": BASE,
    "alexvgg.config": BASE,
    "alexvgg.recipes": CONFIG,
    "alexvgg.batch": set(),
    "alexvgg.models": CONFIG,
    "alexvgg.init": CONFIG,
    "alexvgg.data": CONFIG,
    "alexvgg.engine": CONFIG,
    "alexvgg.evaluation": CONFIG | {"alexvgg.data", "alexvgg.engine", "alexvgg.models"},
    "alexvgg.tracking": CONFIG | {"alexvgg", "alexvgg.data", "alexvgg.init", "alexvgg.engine.world"},
    "alexvgg.profiles": CONFIG,
    "alexvgg.results.paper": CONFIG,
    "alexvgg.planning": CONFIG | {"alexvgg.data"},
    "alexvgg.beats": {"alexvgg.data.store"},
    "alexvgg.attempts": BASE | STORAGE | {"alexvgg.engine.wishes"},
    "alexvgg.lease": BASE | STORAGE,
    "alexvgg.request": CONFIG | {"alexvgg.results.paper"},
    "alexvgg.campaign": CONFIG
    | STORAGE
    | {"alexvgg.attempts", "alexvgg.lease", "alexvgg.runs", "alexvgg.request"}
    | {"alexvgg.planning", "alexvgg.results.paper", "alexvgg.tracking.live"},
    "alexvgg.runs": CONFIG | {"alexvgg.data", "alexvgg.tracking.journal", "alexvgg.attempts", "alexvgg.engine.chance"},
    "alexvgg.results.table": CONFIG | {"alexvgg.data", "alexvgg.runs", "alexvgg.planning", "alexvgg.results.paper"},
    "alexvgg.results": CONFIG | PARTS | {"alexvgg.runs", "alexvgg.attempts"},
    "alexvgg.results.report": CONFIG | PARTS | {"alexvgg", "alexvgg.runs", "alexvgg.results", "alexvgg.scaling"},
    "alexvgg.scaling": CONFIG | {"alexvgg.data", "alexvgg.engine"},
    "alexvgg.first_weights": CONFIG | PARTS | {"alexvgg.runs"},
    "alexvgg.run": CONFIG | PARTS | {"alexvgg.runs", "alexvgg.first_weights", "alexvgg.attempts"},
    "alexvgg.plain": CONFIG | {"alexvgg.data.store", "alexvgg.engine", "alexvgg.attempts", "alexvgg.run"},
    "alexvgg.evaluate": CONFIG | PARTS | {"alexvgg.runs", "alexvgg.request"},
    "alexvgg.weights": CONFIG | PARTS | {"alexvgg.evaluate", "alexvgg.runs", "alexvgg.planning"},
    "alexvgg.doctor": CONFIG | {"alexvgg.data", "alexvgg.engine.step"},
    "jobs": CONFIG | PARTS | RUNS | {"alexvgg.doctor"},
    "cluster": BASE,
    "alexvgg.cli": {"alexvgg", "jobs", "cluster"},
    "alexvgg.__main__": {"alexvgg.cli"},
}

# Only these may import the library named.
HOMES = {
    "ray": ("jobs", "cluster", "alexvgg.cli"),
    "mlflow": ("alexvgg.tracking", "alexvgg.results", "alexvgg.doctor.places"),
    "boto3": ("alexvgg.data.s3",),
    "botocore": ("alexvgg.data.s3", "alexvgg.data.patience"),
    "click": ("alexvgg.cli",),
    "psutil": ("cluster", "jobs.interface", "alexvgg.tracking.machine"),
    "scipy": ("alexvgg.data.packing.ilsvrc",),
    "webdataset": ("alexvgg.data.packing.pack", "alexvgg.data.packing.sample", "alexvgg.data.packing.synthetic"),
}


def module_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def imports_of(path: Path) -> Iterator[str]:
    """The modules that a file imports; `from a import b` is a.b if that is a module of ours."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            modules = {module_of(p) for p in FILES}
            for name in (f"{node.module}.{alias.name}" for alias in node.names):
                yield name if name in modules else str(node.module)


def inside(module: str, packages: set[str] | tuple[str, ...]) -> bool:
    return any(module == p or module.startswith(f"{p}.") for p in packages)


@pytest.mark.parametrize("path", FILES, ids=module_of)
def test_imports_point_down(path: Path) -> None:
    module = module_of(path)
    inner = {f"alexvgg.{name}" for name in ("results", "results.report", "campaign", "doctor", "weights")}
    if module in {"alexvgg", "jobs", "cluster"} | inner:
        assert not list(imports_of(path)), "a package's own file that only says what it is"
        return
    package = max((name for name in ALLOWED if inside(module, (name,))), key=len)
    for imported in imports_of(path):
        if inside(imported, ("alexvgg", "jobs", "cluster")) and imported != "alexvgg":
            assert inside(imported, ALLOWED[package] | {package}), f"{module} imports {imported}"


@pytest.mark.parametrize("path", FILES, ids=module_of)
def test_libraries_stay_at_home(path: Path) -> None:
    for imported in imports_of(path):
        homes = HOMES.get(imported.split(".")[0])
        if homes is not None:
            assert inside(module_of(path), homes), f"{module_of(path)} imports {imported}"


def test_the_command_line_starts_without_heavy_libraries() -> None:
    heavy = "{'torch', 'ray', 'mlflow', 'numpy', 'boto3', 'pydantic', 'PIL', 'sklearn', 'scipy', 'psutil'}"
    code = f"import sys, alexvgg.cli; loaded = {heavy} & set(sys.modules); sys.exit(', '.join(loaded) or 0)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, f"`import alexvgg.cli` loads {result.stderr}"


def test_jobs_start_without_torch() -> None:
    """What runs beside the workers: each of these processes would take 2 s more before the first step."""
    code = "import sys, jobs.campaign, jobs.train, jobs.evaluate, jobs.submit; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_nothing_unpickles() -> None:
    for path in FILES:
        tree = ast.parse(path.read_text())
        assert not {"pickle", "dill", "cloudpickle", "joblib"} & {i.split(".")[0] for i in imports_of(path)}, path
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "torch.load":
                assert "weights_only=True" in ast.unparse(node), path
