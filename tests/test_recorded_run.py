"""A run as columns, as a frame, and what is not to be trusted."""

from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from domainbed_adm.recorded_run import trouble
from domainbed_adm.records import load_runs
from tests.runs import as_runs, record, write


def test_a_run_is_columns(tmp_path: Path) -> None:
    made = {"device": "cpu"}
    first = record((0.1, 0.2), (0.3, None), step=0, loss=2.0, hparams={"lr": 1}, provenance=made)
    later = record((0.5, 0.6), (0.7, 0.8), step=5, more=7, hparams={"lr": 1}, provenance={"device": "gpu"})
    (run,) = load_runs(write(tmp_path, first, later))
    assert (run.algorithm, run.test_envs, run.hparams, len(run), run.last_step) == ("ERM", [0], {"lr": 1}, 2, 5)
    assert run.provenances == (made, {"device": "gpu"})
    assert run.provenance == {"device": "gpu"}
    for name, values in (("loss", [2, math.nan]), ("more", [math.nan, 7]), ("other", [math.nan] * 2)):
        np.testing.assert_array_equal(run.column(name), values)
    np.testing.assert_array_equal(run.source_accuracy("out"), [math.nan, 0.8])
    np.testing.assert_array_equal(run.source_accuracy("in"), [0.3, 0.7])


@pytest.mark.parametrize("count", [2, 7, 8, 9, 31, 130])
def test_means_over_environments_are_numpys_to_the_bit(count: int) -> None:
    """So that ties between checkpoints are broken as DomainBed breaks them."""
    generator = np.random.default_rng(count)
    lines = [record(*((0.5, value) for value in generator.random(count + 1).tolist()), step=step) for step in range(20)]
    (run,) = as_runs(*lines)
    expected = [np.mean([line[f"env{env}_out_acc"] for env in range(1, count + 1)]) for line in lines]
    assert run.source_accuracy("out").tolist() == expected


def test_a_frame_has_a_row_for_each_checkpoint(tmp_path: Path) -> None:
    pandas = pytest.importorskip("pandas")
    write(tmp_path / "a", *(record((0.5, 0.1), step=step, loss=1.0, hparams={"lr": 0.1}) for step in (0, 5)))
    write(tmp_path / "b", record((0.6, 0.2), (0.3, 0.3), test_envs=(0, 1), algorithm="SAM", hparams={"rho": 2}))
    frame = load_runs(tmp_path).to_frame()
    assert isinstance(frame, pandas.DataFrame)
    assert list(frame.columns) == [
        *("folder", "dataset", "algorithm", "test_envs", "trial_seed", "hparams_seed", "step", "env0_in_acc"),
        *("env0_out_acc", "loss", "env1_in_acc", "env1_out_acc", "hparams.lr", "hparams.rho"),
    ]
    assert frame["algorithm"].tolist() == ["ERM", "ERM", "SAM"]
    assert frame["test_envs"].tolist() == ["0", "0", "0 1"]
    assert frame["step"].tolist() == [0, 5, 0]
    np.testing.assert_array_equal(frame["loss"], [1, 1, math.nan])
    np.testing.assert_array_equal(frame["hparams.rho"], [math.nan, math.nan, 2])


def test_a_frame_without_pandas_is_one_line(tmp_path: Path) -> None:
    write(tmp_path, record())
    code = (
        "import sys; sys.modules['pandas'] = None\n"
        "from domainbed_adm.records import load_runs; load_runs(sys.argv[1]).to_frame()"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    assert last.endswith("UserError: to_frame needs pandas: pip install 'domainbed-adm[pandas]'")


def learned(*losses: float | None, accuracy: float, samples: int | None = None, start: float = 0.1) -> str | None:
    origin = {} if samples is None else {"samples": [samples] * 3}
    values = np.linspace(start, accuracy, len(losses)).tolist()
    lines = [
        record((0.9, 0.9), (value, value), (value, value), step=10 * i, loss=loss, provenance=origin)
        for i, (loss, value) in enumerate(zip(losses, values, strict=True))
    ]
    return trouble(*as_runs(*lines), n_classes=10)


def test_a_run_that_exploded_is_named() -> None:
    assert learned(2.3, 0.5, accuracy=0.8) is None
    assert learned(2.3, 1e7, accuracy=0.8) == "exploded: its loss is 1e+07 at step 10, and was 2.3 at step 0"
    assert learned(2.3, None, accuracy=0.8) == "exploded: its loss at step 10 is not a number"
    assert learned(2.3, 1e7, 0.4, accuracy=0.8) is None  # it came back
    assert learned(2.3, 22.9, accuracy=0.8) is None
    assert learned(0.0, 22.9, accuracy=0.8) is None  # a curriculum that begins with no sample
    assert learned(0.0, 23.1, accuracy=0.8) is not None


def test_a_run_at_chance_is_named() -> None:
    assert learned(2.3, 2.3, accuracy=0.1) == (
        "at chance: 10.0 % on the source environments at step 10; chance is 10.0 % (of 10 classes)"
    )
    assert learned(2.3, accuracy=0.1) is None  # it has just begun
    error = 2 * math.sqrt(0.1 * 0.9 / (2 * 500 * 0.8))
    assert learned(2.3, 2.3, accuracy=0.1 + error - 1e-4, samples=500) is not None
    assert learned(2.3, 2.3, accuracy=0.1 + error + 1e-4, samples=500) is None
    flat = as_runs(*(record((0.9, 0.9), (0.3, 0.3), step=step) for step in (0, 10)))
    assert trouble(*flat) == "at chance: 30.0 % on the source environments at step 10; chance is 30.0 % (at step 0)"
