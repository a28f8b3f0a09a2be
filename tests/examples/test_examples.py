"""The examples run: scripts as a reader starts them, notebooks whole (slow) and, quickly, name by name."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"
NOTEBOOKS = sorted(path.name for path in EXAMPLES.glob("*.ipynb"))


def run_script(name: str, *flags: str) -> str:
    command = [sys.executable, str(EXAMPLES / name), *flags]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


def accuracy(printed: str) -> float:
    return float(printed.splitlines()[-1].rpartition(" ")[2])


def test_the_loop_of_pytorch_learns():
    assert accuracy(run_script("pytorch_loop.py", "--steps", "200")) > 0.7


@pytest.mark.skipif(importlib.util.find_spec("lightning") is None, reason="needs pip install lightning")
def test_the_lightning_module_learns():
    assert accuracy(run_script("lightning_module.py", "--epochs", "5")) > 0.7


def cells(name: str) -> list[dict[str, object]]:
    notebook = json.loads((EXAMPLES / name).read_text(encoding="utf-8"))
    return [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_a_notebooks_cells_compile_and_what_they_import_is_there(name):
    for cell in cells(name):
        assert cell["outputs"] == []
        for node in ast.walk(ast.parse("".join(cell["source"]))):
            if isinstance(node, ast.ImportFrom):
                module = importlib.import_module(node.module or "")
                for alias in node.names:
                    assert hasattr(module, alias.name) or importlib.import_module(f"{node.module}.{alias.name}")
            elif isinstance(node, ast.Import):
                for alias in node.names:
                    importlib.import_module(alias.name)


def test_there_are_notebooks():
    assert NOTEBOOKS == ["own_difficulty.ipynb", "quickstart.ipynb"]


@pytest.mark.slow
@pytest.mark.filterwarnings("default")  # of jupyter's own libraries
@pytest.mark.parametrize("name", NOTEBOOKS)
def test_a_notebook_runs(name, tmp_path, monkeypatch):
    nbclient, nbformat = pytest.importorskip("nbclient"), pytest.importorskip("nbformat")
    pytest.importorskip("ipykernel")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path))
    notebook = nbformat.read(EXAMPLES / name, as_version=4)
    nbclient.NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(tmp_path)}}).execute()
    kinds = {output.output_type for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs}
    assert "error" not in kinds
    shown = [output for cell in notebook.cells for output in cell.get("outputs", ()) if "data" in output]
    assert any("image/png" in output.data for output in shown)
