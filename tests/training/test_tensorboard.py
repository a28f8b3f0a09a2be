import json
import re

import numpy as np
import pytest

pytest.importorskip("tensorboard")

from domainbed_adm.loggers.watching import Watch, watched
from domainbed_adm.scripts import train
from tests.training.test_full_disk import no_file_larger_than

FLAGS = ["--dataset", "RotatedDigits", "--checkpoint_freq", "2", "--steps", "3", "--test_envs", "0", "2"]
FLAGS += ["--hparams", '{"cnn_width": 8, "batch_size": 4}', "--algorithm", "ERM"]
CONFIG = {"args": {"test_envs": [0]}, "hparams": {}}
RECORD = {"step": 0} | {f"figure {i}": 0.5 for i in range(9)} | CONFIG


def logged(folder):
    """What is written of a run, without the training."""
    with watched(Watch(["tensorboard"], folder, CONFIG, ["a", "b"], 0, [])) as log:
        log(RECORD, {"ADM": np.arange(9.0)})


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


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "error::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.parametrize("room", [0, 400])
def test_a_full_disk_is_one_line(tmp_path, capsys, room):
    """Whether it is full at the start or at a record: the thread that writes says nothing of its own."""
    (tmp_path / "loggers.json").write_text("{}")
    with no_file_larger_than(room):
        logged(tmp_path)
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    assert re.match(r"warning: --logger tensorboard failed, .*: cannot write .*: File too large", told)
