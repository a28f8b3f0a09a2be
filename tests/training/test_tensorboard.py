import errno
import json
import sys
from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("tensorboard")

from domainbed_adm.errors import UserError
from domainbed_adm.scripts import train
from domainbed_adm.training.observers import tensorboard_events
from tests.training.test_full_disk import no_file_larger_than

FLAGS = ["--dataset", "RotatedDigits", "--checkpoint_freq", "2", "--steps", "3", "--test_envs", "0", "2"]
FLAGS += ["--hparams", '{"cnn_width": 8, "batch_size": 4}', "--algorithm", "ERM"]
RUN = SimpleNamespace(dataset=SimpleNamespace(environments=["a", "b"]), args={"test_envs": [0]})
RECORD = {"step": 0} | {f"env{i}_in_acc": 0.5 for i in range(9)}


def watched(folder):
    """What is written of a run, without the training."""
    with tensorboard_events(RUN, folder / "tensorboard", 0) as write:
        write(RECORD, {"ADM": np.arange(9.0)})


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_scalars_are_the_records_and_histograms_the_traced_scores(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    assert train.main([*FLAGS, "--tensorboard", "--trace_difficulty", "20", "--output_dir", str(tmp_path)]) == 0
    events = EventAccumulator(str(tmp_path / "tensorboard"), size_guidance={"histograms": 0}).Reload()
    records = [json.loads(line) for line in (tmp_path / "results.jsonl").read_text().splitlines()]
    for tag, name in (("summary/loss", "loss"), ("all/env1_out_acc", "env1_out_acc")):
        found = {event.step: event.value for event in events.Scalars(f"te_0_30/{tag}")}
        assert found == pytest.approx({record["step"]: record[name] for record in records}, rel=1e-5)
    histogram = events.Histograms("te_0_30/difficulty/ADM")
    assert [event.step for event in histogram] == [0, 2]
    assert histogram[0].histogram_value.num == 20


def test_without_the_library_nothing_is_trained(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    with pytest.raises(UserError, match="--tensorboard needs tensorboard: pip install tensorboard"):
        train.main([*FLAGS, "--tensorboard", "--output_dir", str(tmp_path)])
    assert not (tmp_path / "results.jsonl").exists()


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "error::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.parametrize("room", [0, 400])
def test_a_full_disk_is_one_line(tmp_path, capsys, room):
    """Whether it is full at the start or at a record: the thread that writes says nothing of its own."""
    with no_file_larger_than(room), pytest.raises(UserError, match="^cannot write .*/tensorboard: File too large"):
        watched(tmp_path)
    assert capsys.readouterr().err == ""


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_closing_hides_no_error_and_tells_its_own(tmp_path, monkeypatch):
    def full(self):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("torch.utils.tensorboard.SummaryWriter.close", full)
    with pytest.raises(UserError, match="^cannot write .*/tensorboard: No space left on device"):
        watched(tmp_path)
    with pytest.raises(KeyError, match="of the block"), tensorboard_events(RUN, tmp_path / "tensorboard", 0):
        raise KeyError("of the block")
