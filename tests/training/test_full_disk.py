"""A disk that fills up costs one clear line, never a torn file, and the same command goes on once there is room."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from domainbed_adm import records
from domainbed_adm.errors import UserError
from domainbed_adm.training.model_file import load_tensors, save_model
from tests.runs import record, write
from tests.training.test_resume import assert_same, train


@contextmanager
def no_file_larger_than(size: int) -> Iterator[None]:
    """The system refuses to make any file of this process larger, as it does on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("part", [0.0, 0.5, 0.9])
def test_a_checkpoint_that_does_not_fit_leaves_the_good_one(tmp_path: Path, part: float) -> None:
    path = tmp_path / "checkpoint.pkl"
    save_model(path, {"weights": torch.ones(5000)})
    with no_file_larger_than(int(part * path.stat().st_size)), pytest.raises(UserError) as caught:
        save_model(path, {"weights": torch.zeros(5000)})
    message = str(caught.value)
    assert message.startswith(f"cannot write {path}: File too large (")
    assert message.endswith(
        "MiB free on its disk). When there is room, the same command goes on from the last checkpoint"
    )
    assert torch.equal(load_tensors(path, ["weights"])["weights"], torch.ones(5000))
    assert [left.name for left in tmp_path.iterdir()] == ["checkpoint.pkl"]


def test_a_record_that_does_not_fit_leaves_the_file_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    records.append(path, {"step": 0})
    before = path.read_bytes()
    with no_file_larger_than(len(before) + 7), pytest.raises(UserError, match=r"results.jsonl: File too large"):
        records.append(path, {"step": 1, "loss": 0.5})
    assert path.read_bytes() == before
    records.append(path, {"step": 1})
    assert path.read_bytes() == before + b'{"step": 1}\n'


def test_records_that_do_not_fit_are_not_cut(tmp_path: Path) -> None:
    path = write(tmp_path, *(record((0.5, 0.5), step=step) for step in range(9))) / "results.jsonl"
    before = path.read_bytes()
    with no_file_larger_than(0), pytest.raises(UserError, match="results.jsonl: File too large"):
        records.keep_steps(path, range(5))
    assert path.read_bytes() == before
    assert [left.name for left in tmp_path.iterdir()] == ["results.jsonl"]


@pytest.mark.parametrize("share", [0.1, 0.3, 0.6, 0.99])
def test_a_run_on_a_full_disk_ends_in_one_line_and_goes_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], share: float
) -> None:
    """Whatever file meets the limit first: out.txt, results.jsonl, a checkpoint or the model."""
    whole, full = tmp_path / "whole", tmp_path / "full"
    assert train(whole, "FSAM_SPL_ADM", "--checkpoint_every", "1") == 0
    sizes = [(whole / name).stat().st_size for name in ("out.txt", "results.jsonl", "model.pkl")]
    capsys.readouterr()
    with no_file_larger_than(int(share * sizes[1 if share > 0.5 else 2])):
        assert train(full, "FSAM_SPL_ADM", "--checkpoint_every", "1") == 2
    errors = capsys.readouterr().err
    assert errors.startswith(f"domainbed-adm: error: cannot write {full}/")
    assert errors.count("\n") == 1
    assert not (full / "done").exists()
    assert not list(full.glob("*.unfinished"))
    assert train(full, "FSAM_SPL_ADM", "--checkpoint_every", "1") == 0
    assert_same(whole, full)
