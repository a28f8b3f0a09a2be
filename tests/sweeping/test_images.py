"""An image that goes bad while a sweep runs: the job says which, and goes on from its checkpoint when it is mended."""

from __future__ import annotations

import contextlib
import io
import json
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from domainbed_adm import run_files
from domainbed_adm.cli import main
from domainbed_adm.sweeping import failures
from domainbed_adm.sweeping.jobs import DONE, Sweep
from domainbed_adm.sweeping.pool import Outcome
from domainbed_adm.training import loop, resume

HPARAMS = json.dumps({"image_size": 28, "cnn_width": 8, "batch_size": 4})


def in_this_process(commands: list[str], *, on_end: Callable[[int, Outcome], None], **_: Any) -> list[int]:
    """A launcher that starts no processes; the last words of a command are ``train``'s."""
    for index, command in enumerate(commands):
        err = io.StringIO()
        words = shlex.split(command)
        with contextlib.redirect_stderr(err), contextlib.redirect_stdout(io.StringIO()):
            code = main(["train", "--workers", "0", "--checkpoint_freq", "2", *words[words.index("-m") + 2 :]])
        on_end(index, Outcome(code, err.getvalue().splitlines(), 0.0))
    return [0] * len(commands)


@pytest.mark.parametrize(
    ("harm", "why"), [("broken", "no image of a format that Pillow knows"), ("gone", "No such file or directory")]
)
def test_the_job_fails_names_the_file_and_goes_on_when_it_is_mended(
    tmp_path: Path,
    image_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    harm: str,
    why: str,
) -> None:
    monkeypatch.setattr("domainbed_adm.sweeping.launchers.local.local", in_this_process)
    path = image_folder / "Shapes/light/circle/0.jpg"
    whole = path.read_bytes()
    save = resume.save_position

    def then_harm(*args: Any) -> None:
        save(*args)
        if harm == "broken":
            path.write_bytes(b"no image")
        else:
            path.unlink(missing_ok=True)

    monkeypatch.setattr(loop, "save_position", then_harm)
    job, *others = Sweep(
        ["Shapes"],
        ["ERM"],
        n_hparams=1,
        n_trials=1,
        single_test_envs=True,
        steps=5,
        hparams=HPARAMS,
        data_dir=str(image_folder),
    ).jobs(tmp_path / "out")
    for other in others:
        other.output_dir.mkdir(parents=True)
        (other.output_dir / "done").touch()
    sweep = ["--output_dir", str(tmp_path / "out"), "--datasets", "Shapes", "--data_dir", str(image_folder)]
    sweep += ["--algorithms", "ERM", "--n_trials", "1", "--n_hparams", "1", "--single_test_envs", "--steps", "5"]
    sweep += ["--hparams", HPARAMS]
    launch = ["sweep", "launch", *sweep, "--skip_confirmation"]
    assert main(launch) == 1
    reason = f"exit code 2: cannot decode image {path}: {why}"
    failure = failures.read(job.output_dir)
    assert failure is not None
    assert failure.reason == reason
    capsys.readouterr()
    assert main(["sweep", "status", *sweep]) == 0
    assert f"failed: {job.label}: {reason}" in capsys.readouterr().out

    monkeypatch.setattr(loop, "save_position", save)
    path.write_bytes(whole)
    assert main(launch) == 0
    assert [one.state for one in (job, *others)] == [DONE] * 3
    assert not (job.output_dir / run_files.FAILED).exists()
    assert "resumed at step 1" in (job.output_dir / "out.txt").read_text()
    lines = (job.output_dir / "results.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [0, 2, 4]
