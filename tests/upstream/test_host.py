"""Finding DomainBed, and what is said where it cannot be found or used."""

import re
from pathlib import Path

import pytest

from domainbed_adm import upstream
from domainbed_adm.cli import main
from tests.upstream.conftest import HOST, forget_host


def fails(capsys, *flags):
    assert main(["upstream", "train", *flags]) == 2
    error = capsys.readouterr().err
    assert error.startswith("domainbed-adm: error: ")
    assert error.count("\n") == 1, error
    return error


def test_a_flag_comes_before_the_variable_before_the_path(monkeypatch, tmp_path, copy_of_host):
    monkeypatch.syspath_prepend(copy_of_host)
    assert upstream.find() == copy_of_host
    monkeypatch.setenv(upstream.VARIABLE, str(HOST))
    assert upstream.find() == HOST
    assert upstream.find(str(copy_of_host)) == copy_of_host


def test_the_current_folder_counts_as_with_python_m(monkeypatch, copy_of_host):
    monkeypatch.chdir(copy_of_host)
    assert upstream.find() == copy_of_host


def test_none_found_names_the_three_ways(monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)
    error = fails(capsys)
    assert all(way in error for way in ("--domainbed PATH", "DOMAINBED_DIR", "Python path"))


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("nowhere", "--domainbed nowhere is no folder"),
        (str(HOST.parent), "holds no folder domainbed: give the folder that git clone made"),
        (str(HOST / "domainbed"), re.escape(f"holds no folder domainbed: give {HOST}")),
    ],
)
def test_a_path_that_is_none(capsys, path, message):
    assert re.search(message, fails(capsys, "--domainbed", path))


def test_a_flag_without_a_path(capsys):
    with pytest.raises(SystemExit) as end:
        main(["upstream", "train", "--domainbed"])
    assert end.value.code == 2
    assert "--domainbed: expected one argument" in capsys.readouterr().err


@pytest.mark.parametrize("package", ["timm", "wilds"])
def test_a_missing_import_names_the_package_and_the_extra(capsys, copy_of_host, package):
    file = copy_of_host / "domainbed/networks.py"
    file.write_text(f"import {package}_not_installed\n" + file.read_text())
    error = fails(capsys, f"--domainbed={copy_of_host}")
    assert f"imports {package}_not_installed, which is not installed: pip install '.[upstream]'" in error


def test_an_import_that_fails_otherwise(capsys, copy_of_host):
    file = copy_of_host / "domainbed/networks.py"
    file.write_text("from json import nothing\n" + file.read_text())
    assert "cannot be imported (cannot import name 'nothing'" in fails(capsys, "--domainbed", str(copy_of_host))


def test_a_scripts_own_missing_import(capsys, copy_of_host):
    file = copy_of_host / "domainbed/scripts/train.py"
    file.write_text("import gdown_not_installed\n" + file.read_text())
    assert "imports gdown_not_installed, which" in fails(capsys, "--domainbed", str(copy_of_host))


USED = {
    "domainbed.algorithms.get_algorithm_class": ("algorithms.py", "def get_algorithm_class", "def other"),
    "domainbed.algorithms.ERM": ("algorithms.py", "ERM", "Base"),
    "domainbed.hparams_registry.random_hparams": ("hparams_registry.py", "def random_hparams", "def other"),
    "domainbed.datasets.DATASETS": ("datasets.py", "DATASETS", "NAMES"),
    "domainbed.command_launchers.REGISTRY": ("command_launchers.py", "REGISTRY", "LAUNCHERS"),
    "domainbed.command_launchers": ("command_launchers.py", None, None),
    "domainbed.scripts.train": ("scripts/train.py", None, None),
    "domainbed.algorithms.ERM().optimizer": ("algorithms.py", "self.optimizer", "self.adam"),
}


@pytest.mark.parametrize("lacking", USED)
def test_a_missing_name_is_told(capsys, copy_of_host, tmp_path, lacking):
    name, old, new = USED[lacking]
    file = copy_of_host / "domainbed" / name
    text = file.read_text()
    file.unlink()
    if old:
        assert old in text
        file.write_text(text.replace(old, new))
    error = fails(capsys, "--domainbed", str(copy_of_host), "--algorithm", "SAM", "--output_dir", str(tmp_path / "run"))
    assert f"has no {lacking}: it is too old or changed; known to work is commit b93c22a" in error


def test_an_algorithm_of_the_same_name_is_an_error(capsys, copy_of_host):
    file = copy_of_host / "domainbed/algorithms.py"
    file.write_text(file.read_text() + "\n\nclass SAM(ERM):\n    pass\n")
    assert "already has a SAM in domainbed.algorithms" in fails(capsys, "--domainbed", str(copy_of_host))


def test_another_checkout_cannot_follow_in_one_process(capsys, host, copy_of_host):
    assert "is already imported" in fails(capsys, "--domainbed", str(copy_of_host))
    forget_host()
    assert upstream.register(str(copy_of_host)).host.root == copy_of_host


def test_only_upstream_imports_domainbed():
    package = Path(upstream.__file__).parents[1]
    importing = re.compile(r"^\s*(?:from|import) domainbed\b(?!_)", re.MULTILINE)
    code = {path: re.sub(r'"""[\s\S]*?"""', "", path.read_text()) for path in package.rglob("*.py")}
    assert not [path for path, text in code.items() if importing.search(text)]
    assert [path.name for path, text in code.items() if 'import_module(f"domainbed.' in text] == ["host.py"]
