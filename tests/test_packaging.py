"""The wheel holds the package with all its data, and works where no repository is."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest
import yaml

import domainbed_adm

ROOT = Path(__file__).parents[1]
#: What building reads.
SOURCES = ["setup.py", "pyproject.toml", "MANIFEST.in", "README.md", "CHANGELOG.md", "CITATION.cff", "LICENSE"]
BUILD = "import sys; from setuptools import build_meta; print(getattr(build_meta, sys.argv[1])(sys.argv[2]))"
#: Of the named sweeps, and what they lie as in the wheel.
SWEEPS, INSTALLED = "sweeps", "domainbed_adm/named_sweeps"


def build(kind: str, source: Path, target: Path) -> Path:
    """``kind`` wheel or sdist, by setuptools as it is installed; it writes into ``source`` too."""
    command = [sys.executable, "-c", BUILD, f"build_{kind}", str(target)]
    done = subprocess.run(command, cwd=source, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return target / done.stdout.splitlines()[-1]


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Of a copy of the repository, and of the source archive of it."""
    root = tmp_path_factory.mktemp("packaging")
    for name in SOURCES:
        (root / "copy").mkdir(exist_ok=True)
        shutil.copy(ROOT / name, root / "copy")
    for name in ("domainbed_adm", SWEEPS):
        shutil.copytree(ROOT / name, root / "copy" / name, ignore=shutil.ignore_patterns("__pycache__"))
    archive = build("sdist", root / "copy", root)
    with tarfile.open(archive) as tar:
        if hasattr(tarfile, "data_filter"):
            tar.extractall(root / "unpacked", filter="data")
        else:
            tar.extractall(root / "unpacked")
    [unpacked] = (root / "unpacked").iterdir()
    (root / "again").mkdir()
    return build("wheel", root / "copy", root), build("wheel", unpacked, root / "again")


def contents(wheel: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(wheel) as files:
        return {name: files.read(name) for name in files.namelist()}


def test_the_wheel_is_the_package_with_all_its_data(wheels: tuple[Path, Path]) -> None:
    told = contents(wheels[0])
    files = [path for path in (ROOT / "domainbed_adm").rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    there = {path.relative_to(ROOT).as_posix(): path.read_bytes() for path in files}
    there |= {f"{INSTALLED}/{path.name}": path.read_bytes() for path in (ROOT / SWEEPS).iterdir() if path.is_file()}
    info = f"domainbed_adm-{domainbed_adm.__version__}.dist-info/"
    assert {name: told[name] for name in told if not name.startswith(info)} == there
    assert told[info + "licenses/LICENSE"] == (ROOT / "LICENSE").read_bytes()
    assert b"domainbed-adm = domainbed_adm.cli:main" in told[info + "entry_points.txt"]
    about = Parser().parsestr(told[info + "METADATA"].decode())
    assert about["Version"] == domainbed_adm.__version__
    assert {"figures", "tensorboard", "backbones", "ray", "search", "dev"} <= set(about.get_all("Provides-Extra", []))


def test_the_source_archive_builds_the_same_wheel(wheels: tuple[Path, Path]) -> None:
    ours, again = map(contents, wheels)
    record = next(name for name in ours if name.endswith("/RECORD"))
    assert sorted(ours.pop(record).splitlines()) == sorted(again.pop(record).splitlines())
    assert ours == again


def test_what_cites_it_states_its_version() -> None:
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert cited["version"] == domainbed_adm.__version__
    assert f"\n## {domainbed_adm.__version__}\n" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


@pytest.mark.slow
def test_installed_where_nothing_else_is_it_works(wheels: tuple[Path, Path], tmp_path: Path) -> None:
    venv.create(tmp_path / "empty", with_pip=True)
    python = tmp_path / "empty/bin/python"
    # torch and the others are this environment's: they are not fetched again
    [site] = (tmp_path / "empty/lib").glob("python*/site-packages")
    (site / "others.pth").write_text(sysconfig.get_path("purelib") + "\n")
    keep = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "DOMAINBED"))}

    def run(*words: str) -> str:
        done = subprocess.run(words, cwd=tmp_path, env=keep, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{words}: {done.stdout}{done.stderr}"
        return done.stdout

    run(str(python), "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", str(wheels[0]))
    assert run(str(python), "-c", "import domainbed_adm; print(domainbed_adm.__file__)").startswith(str(site))
    command = str(tmp_path / "empty/bin/domainbed-adm")
    assert run(command, "--version").strip() == domainbed_adm.__version__
    assert "SAM_SSPL_ADM" in run(command, "list", "algorithms")
    names = sorted(path.stem for path in (ROOT / SWEEPS).glob("*.yaml"))
    for name in names:
        run(command, "sweep", "launch", "--sweep", name, "--output_dir", "planned", "--dry_run")
    assert not (tmp_path / "planned").exists()
    small = ["--steps", "5", "--hparams", '{"cnn_width": 8, "batch_size": 4}', "--output_dir", "runs/one"]
    run(command, "train", "--dataset", "RotatedDigits", "--algorithm", "SAM_SSPL_ADM", *small)
    run(command, "report", "runs")
    assert (tmp_path / "runs/report.html").stat().st_size > 10_000
    mirrors = "from domainbed_adm.datasets.downloading.mirrors import load_sources; print(*load_sources([]))"
    assert "PACS" in run(str(python), "-c", mirrors)
