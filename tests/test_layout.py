"""Which module imports which: no circles, the method knows nothing of its hosts, listings load no torch."""

from __future__ import annotations

import ast
import subprocess
import sys
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import domainbed_adm

ROOT = Path(domainbed_adm.__file__).parent
MODULES = {
    ".".join(path.relative_to(ROOT.parent).with_suffix("").parts).removesuffix(".__init__"): path
    for path in ROOT.rglob("*.py")
}
#: What ``method/`` may import beside the standard library and itself.
ALLOWED_IN_METHOD = {"torch", "numpy", "domainbed_adm.errors"}
#: What commands import that read records or cards and compute nothing.
LISTINGS = (
    "domainbed_adm",
    "domainbed_adm.cli",
    "domainbed_adm.leaderboard",
    "domainbed_adm.method.grid",
    "domainbed_adm.run_args",
    "domainbed_adm.scripts.collect_results",
    "domainbed_adm.scripts.completion",
    "domainbed_adm.scripts.doctor",
    "domainbed_adm.scripts.download",
    "domainbed_adm.scripts.export",
    "domainbed_adm.scripts.list",
    "domainbed_adm.scripts.list_top_hparams",
    "domainbed_adm.scripts.search",
    "domainbed_adm.scripts.study",
    "domainbed_adm.scripts.sweep",
    "domainbed_adm.scripts.verify_data",
    "domainbed_adm.sweeping.status",
)


def statements(body):
    """Every statement, those in functions too, but not what only type checkers read."""
    for node in body:
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            yield from statements(node.orelse)
        else:
            yield node
            yield from statements(ast.iter_child_nodes(node))


def imports(path):
    """Names that a file imports."""
    for node in statements(ast.parse(path.read_text(encoding="utf-8")).body):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                yield whole if whole in MODULES else node.module


def test_modules_do_not_import_each_other_in_a_circle():
    graph = {name: {other for other in imports(path) if other in MODULES} for name, path in MODULES.items()}
    try:
        list(TopologicalSorter(graph).static_order())
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


def test_the_method_knows_torch_and_numpy_alone():
    foreign = {
        f"{path.name}: {name}"
        for path in (ROOT / "method").glob("*.py")
        for name in imports(path)
        if not name.startswith("domainbed_adm.method")
        and name.partition(".")[0] not in sys.stdlib_module_names
        and name not in ALLOWED_IN_METHOD
        and not name.startswith(("torch.", "numpy."))
    }
    assert not foreign


@pytest.mark.parametrize("module", LISTINGS)
def test_listings_load_no_torch(module):
    check = f"import sys, {module}; sys.exit(not {{'torch', 'optuna'}}.isdisjoint(sys.modules))"
    assert subprocess.run([sys.executable, "-c", check], check=False).returncode == 0


def test_a_run_on_digits_loads_nothing_that_it_does_not_use(tmp_path):
    flags = ["--steps", "1", "--hparams", '{"cnn_width": 8}', "--output_dir", str(tmp_path)]
    unused = {"torchvision", "sklearn", "scipy", "matplotlib", "pandas", "tensorboard", "PIL"}
    check = f"import sys; from domainbed_adm.scripts.train import main; main({flags})\n"
    check += f"sys.exit(', '.join({unused} & set(sys.modules)) or 0)"
    ended = subprocess.run([sys.executable, "-c", check], check=False, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
