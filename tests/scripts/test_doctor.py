"""``doctor`` tells what is here, and marks what would hold up a run; ``completion`` is a script that bash runs."""

import json
import subprocess
import sys

import pytest

from domainbed_adm import doctor
from domainbed_adm.errors import UserError
from domainbed_adm.scripts import completion
from domainbed_adm.scripts.doctor import main


@pytest.fixture(autouse=True)
def _no_torch(monkeypatch):
    """A child that imports torch takes seconds: here it tells what one with a GPU would."""
    told = '{"devices": {"cuda:0": "X, 80.0 GiB, 79.0 free, bf16 True"}, "built": "12.8", "threads": 4}'
    monkeypatch.setattr(doctor, "_DEVICES", f"print('{told}')")


def found(capsys, *flags):
    assert main(["--json", *map(str, flags)]) == 0
    told = json.loads(capsys.readouterr().out)
    return told["found"], told["problems"]


def test_what_is_here_is_told_and_nothing_is_left(tmp_path, capsys):
    (tmp_path / ".decoded" / "PACS-3").mkdir(parents=True)
    (tmp_path / ".decoded" / "PACS-3" / "a.pixels").write_bytes(b"0")
    here, problems = found(capsys, "--output_dir", tmp_path, "--data_dir", tmp_path)
    assert not [problem for problem in problems if "GiB free" not in problem and "container" not in problem]
    assert here["versions"]["python"].startswith(".".join(map(str, sys.version_info[:3])))
    assert here["devices"]["cuda:0"].endswith("bf16 True")
    assert here["locks"] == {"flock": "holds between processes"}
    assert here["caches"][".decoded/PACS-3"] == "0.00 GiB"
    assert [path.name for path in tmp_path.iterdir()] == [".decoded"]
    assert main(["--output_dir", str(tmp_path)]) == 0
    assert "\nlocks:\n  flock: holds between processes\n" in capsys.readouterr().out


def test_problems_say_what_to_do(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(doctor, "_HOLD", "")  # as on a disk whose locks keep nobody out
    monkeypatch.setattr(doctor, "_quota", lambda: 0.5)
    monkeypatch.setattr(doctor, "_DEVICES", "raise ImportError('libcudart.so.12: cannot open shared object file')")
    monkeypatch.setattr(doctor, "_versions", lambda: 1 / 0)
    _, problems = found(capsys, "--output_dir", tmp_path, "--data_dir", tmp_path / "none", "--domainbed", tmp_path)
    for part in (
        "does not keep another process out",
        "the time of 0.5 CPUs",
        "libcudart.so.12",
        "versions: division by zero",
        "is no folder: mkdir -p it",
        "holds no folder domainbed",
    ):
        assert sum(part in problem for problem in problems) == 1, part


def test_a_look_that_hangs_is_left(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(doctor, "_DEVICES", "import threading; threading.Event().wait()")
    _, problems = found(capsys, "--output_dir", tmp_path, "--timeout", "0.2")
    assert any(problem.startswith("devices: no answer in 0.2 s") for problem in problems)


def completed(script, *words):
    """What bash proposes for the last of these words."""
    line = " ".join(f"'{word}'" for word in words)
    program = f"source {script}; COMP_WORDS=({line}); COMP_CWORD={len(words) - 1}\n"
    program += f"_shtab_domainbed_adm domainbed-adm '{words[-1]}' '{words[-2]}'; echo \"${{COMPREPLY[@]}}\""
    return subprocess.run(["bash", "-c", program], capture_output=True, text=True, check=True).stdout.split()


def test_bash_completes_commands_flags_and_names(tmp_path, capsys):
    pytest.importorskip("shtab")
    assert completion.main(["bash"]) == 0
    script = tmp_path / "script"
    script.write_text(capsys.readouterr().out)
    (tmp_path / "folder").mkdir()
    for words, expected in (
        (("tr",), ["train"]),
        (("train", "--algorithm", "SAM_SSPL_A"), ["SAM_SSPL_ADM"]),
        (("train", "--dataset", "PAC"), ["PACS"]),
        (("train", "--logger", "wa"), ["wandb"]),
        (("train", "--uda"), ["--uda_holdout_fraction"]),
        (("sweep", "launch", "--command_launcher", "slu"), ["slurm"]),
        (("train", "--output_dir", f"{tmp_path}/f"), [f"{tmp_path}/folder"]),
    ):
        assert completed(script, "domainbed-adm", *words) == expected, words


def test_each_shell_has_a_script_or_is_told_what_lacks(capsys, monkeypatch):
    pytest.importorskip("shtab")
    for shell in ("zsh", "fish"):
        assert completion.main([shell]) == 0
        assert "SAM_SSPL_ADM" in capsys.readouterr().out
    monkeypatch.setitem(sys.modules, "shtab", None)
    with pytest.raises(UserError, match="completion needs shtab: pip install shtab"):
        completion.main(["bash"])
