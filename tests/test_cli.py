"""What every command does with names that are not UTF-8, and with folders that may not be read."""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import domainbed_adm
from domainbed_adm.cli import COMMANDS, main, run
from domainbed_adm.sweeping.jobs import Sweep
from tests.runs import record

ODD = "caf\udce9\x1b[2J"
TOO_LONG = "a" * 300
#: Command lines that end in a path; one that the system takes would do.
PATHS = [
    *("train --output_dir", "predict --images . --model", "report", "evaluate", "analyze hessian"),
    "collect_results --input_dir",
    "list_top_hparams --input_dir",
    "search --dataset Debug28 --algorithm ERM --output_dir",
    "sweep launch --sweep smoke --skip_confirmation --output_dir",
    "sweep status --sweep smoke --output_dir",
    *("verify_data --data_dir . --dataset", "verify_data --dataset PACS --data_dir"),
    *("train --data_dir . --dataset", "train --dataset PACS --data_dir"),
]
#: Command lines with one place for the odd name; no file of that name is there.
LINES = [
    *("train --dataset", "train --algorithm", "train --hparams", "train --seed", "train --task", "train --test_envs"),
    *(
        "train --dataset Mine --data_dir",
        "train --dataset PACS --data_dir",
        "train --odd",
        "train --steps 0 --output_dir",
    ),
    *(
        "sweep",
        "sweep launch --sweep",
        "sweep status --output_dir out --datasets",
        "sweep launch --output_dir out --jobs",
    ),
    *("sweep launch --output_dir out --algorithms", "sweep launch --output_dir out --hparams"),
    "sweep launch --output_dir out --algorithms ERM --datasets PACS --data_dir",
    "sweep launch --output_dir out --command_launcher",
    *("predict --images . --model", "collect_results --input_dir", "collect_results --input_dir . --selection"),
    *("list_top_hparams --input_dir", "train --hparams_from"),
    *(
        "search --algorithm ERM --output_dir out --dataset",
        "search --dataset Debug28 --algorithm ERM --output_dir out --search",
        "search --dataset Debug28 --algorithm ERM --output_dir out --search_space",
    ),
    *("train --config", "export --format onnx --out x"),
    *("study", "report", "evaluate", "analyze", "analyze hessian", "analyze landscape", "analyze difficulty"),
    "analyze predictions",
    *("download --data_dir out --dataset", "download --data_dir out --dataset PACS --mirrors"),
    *("verify_data --data_dir . --dataset", "verify_data --dataset PACS --data_dir"),
    *("doctor", "completion"),
    *("list", "list hparams --algorithm", "upstream", "upstream train --domainbed"),
]


def called(*words: str) -> tuple[int, str, str]:
    """Run a command as into files of a strict encoding; its exit code, and what it printed."""
    out, err = (io.TextIOWrapper(io.BytesIO(), "utf-8", errors="strict", write_through=True) for _ in range(2))
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            code = main(words)
        except SystemExit as end:  # of argparse
            code = end.code if isinstance(end.code, int) else 1
    printed, told = (stream.buffer.getvalue().decode() for stream in (out, err))  # type: ignore[attr-defined]
    return code, printed, told


@pytest.mark.parametrize(("line", "name"), [(line, ODD) for line in LINES] + [(line, TOO_LONG) for line in PATHS])
def test_an_odd_name_of_nothing_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: str, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    code, _, told = called(*line.split(), name)
    assert (code, told.count("\n")) == (2, 1)
    assert "\x1b" not in told
    assert not list(tmp_path.rglob("*.jsonl"))


@pytest.mark.parametrize("command", [*COMMANDS, "sweep work"])
def test_every_command_helps(command: str) -> None:
    code, printed, told = called(*command.split(), "--help")
    assert (code, told) == (0, "")
    assert "examples:" in printed


def test_every_command_is_tried() -> None:
    assert {line.split()[0] for line in LINES} == COMMANDS.keys()


def test_folders_of_odd_names_serve(tmp_path: Path, image_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A dataset, its folder and the run's: trained, found finished, and told in tables."""
    monkeypatch.chdir(tmp_path)
    (image_folder / "Shapes").rename(image_folder / ODD)
    hparams = '{"image_size": 28, "cnn_width": 8, "batch_size": 2}'
    flags = ["--dataset", ODD, "--data_dir", "data", "--steps", "1", "--workers", "0", "--hparams", hparams]
    flags += ["--output_dir", f"{ODD}/run"]
    for expected in ("samples in+out", "caf\\udce9\x1b[2J/run holds this run, finished"):
        code, printed, _ = called("train", *flags)
        assert code == 0
        assert expected in printed
    assert called("collect_results", "--input_dir", ODD)[0] == 0
    for expected in ("(10 images)", "(there already"):
        code, _, told = called("evaluate", f"{ODD}/run")
        assert (code, told.count("\n")) == (0, 1), told
        assert expected in told


def test_what_may_not_be_read_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    def refuse(argv: object) -> int:
        raise PermissionError(13, "Permission denied", "/there/\udce9")

    assert run(refuse, []) == 2
    assert capsys.readouterr().err == "domainbed-adm: error: /there/\\udce9: Permission denied\n"


@pytest.fixture
def powerless() -> list[str]:
    """Words before a command that take from root the power to read everything."""
    if os.geteuid():
        return []
    if shutil.which("setpriv") is None:
        pytest.skip("root may read everything, and there is no setpriv")
    return ["setpriv", "--bounding-set=-dac_override,-dac_read_search"]


@pytest.mark.parametrize("command", ["sweep status --output_dir", "collect_results --input_dir"])
@pytest.mark.parametrize("closed", ["", "job"])
def test_a_closed_folder_is_one_line(tmp_path: Path, powerless: list[str], command: str, closed: str) -> None:
    sweep = tmp_path / "sweep"
    (job,) = Sweep(["Debug28"], ["ERM"], n_hparams=1, n_trials=1, single_test_envs=True).jobs(sweep)[:1]
    for folder in (job.output_dir, sweep / "other"):
        folder.mkdir(parents=True)
        (folder / "results.jsonl").write_text(json.dumps(record((0.5, 0.5), (0.4, 0.6))) + "\n")
    target = job.output_dir if closed else sweep
    if powerless:
        os.chown(target, 65534, -1)
    target.chmod(0o700 if powerless else 0)
    flags = "--datasets Debug28 --algorithms ERM --n_hparams 1 --n_trials 1 --single_test_envs"
    words = [*command.split(), str(sweep), *(flags.split() if "status" in command else [])]
    environment = os.environ | {"PYTHONPATH": str(Path(domainbed_adm.__file__).parents[1])}
    run_by = [*powerless, sys.executable, "-m", "domainbed_adm.cli", *words]
    done = subprocess.run(run_by, capture_output=True, text=True, check=False, env=environment)
    target.chmod(0o700)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert str(target) in done.stderr
    assert "ermission" in done.stderr


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
@pytest.mark.parametrize("command", ["list sweeps", "sweep launch --sweep smoke --output_dir out"])
def test_a_closed_stream_is_no_traceback(tmp_path: Path, closed: str, command: str) -> None:
    environment = os.environ | {"PYTHONPATH": str(Path(domainbed_adm.__file__).parents[1])}
    line = f"exec {sys.executable} -m domainbed_adm {command} {closed}"
    done = subprocess.run(
        ["sh", "-c", line], capture_output=True, text=True, cwd=tmp_path, env=environment, check=False
    )
    assert done.returncode == (0 if "list" in command else 2)  # nobody to confirm
    assert "Traceback" not in done.stderr
    assert done.stderr.count("\n") <= 1


def test_brackets_without_end_are_one_line() -> None:
    code, _, told = called("train", "--hparams", "[" * 100_000)
    assert (code, told.count("\n")) == (2, 1)
    assert "--hparams is not JSON" in told
    assert len(told) < 500
