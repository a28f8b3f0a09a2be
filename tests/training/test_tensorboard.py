import json
import sys

import pytest

pytest.importorskip("tensorboard")

from domainbed_adm.errors import UserError
from domainbed_adm.scripts import train

FLAGS = ["--dataset", "RotatedDigits", "--checkpoint_freq", "2", "--steps", "3", "--test_envs", "0", "2"]
FLAGS += ["--hparams", '{"cnn_width": 8, "batch_size": 4}', "--algorithm", "ERM"]


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
