"""``python -m benchmarks.whole_runs``: its small size from end to end, and what it makes of the times it measures."""

import csv
import sys

import pytest

from benchmarks.timed import Rates, timed_run
from benchmarks.whole_runs import DOMAINBED, FULL, Measured, main, rows_of
from domainbed_adm.errors import UserError

#: Writes a record at once and two more, each 0.6 s later, of 2 steps of 0.1 s each, and ends 0.4 s after the last.
RUN = """
import json, sys, time
from pathlib import Path
for step, pause in ((0, 0), (2, 0.6), (4, 0.6)):
    time.sleep(pause)
    with (Path(sys.argv[1]) / "results.jsonl").open("a") as file:
        file.write(json.dumps({"step": step, "step_time": 0.1}) + "\\n")
time.sleep(0.4)
"""


def test_rates_are_of_the_time_between_the_first_record_and_the_last(tmp_path):
    rates = timed_run([sys.executable, "-c", RUN, str(tmp_path / "run")], tmp_path / "run", images=24, evaluated=40)
    assert rates.training == pytest.approx(4 * 24 / 0.4)
    assert rates.evaluation == pytest.approx(2 * 40 / 0.8, rel=0.25)
    assert rates.seconds >= 1.6


def test_a_run_that_fails_is_told_with_its_last_lines(tmp_path):
    with pytest.raises(UserError, match="no such thing"):
        timed_run([sys.executable, "-c", "raise SystemExit('no such thing')"], tmp_path / "run", 1, 1)


def test_the_full_size_is_the_one_stated():
    assert (FULL.images, FULL.evaluated, FULL.steps, FULL.side) == (24, 3700, 21, 227)


def test_rows_are_medians_of_ratios_within_a_round():
    theirs = Measured([Rates(1, 1, 300.0), Rates(1, 1, 290.0), Rates(1, 1, 310.0)])
    mine = Measured(
        [Rates(9, 30, 100.0), Rates(6, 30, 90.0), Rates(10, 30, 120.0)],
        [Rates(10, 30, 90.0), Rates(10, 60, 90.0), Rates(10, 30, 90.0)],
    )
    domainbed, row = rows_of({DOMAINBED: theirs, "fp32, cache": mine})
    assert (domainbed["times_domainbed"], domainbed["seconds_of_floor"], domainbed["met"]) == ("1.00", "", "")
    assert (row["training_of_floor"], row["evaluation_of_floor"], row["seconds_of_floor"]) == ("0.90", "1.00", "0.90")
    assert (row["times_domainbed"], row["met"], row["floor_met"]) == ("3.00", "yes", "yes")
    (alone,) = rows_of({"fp32, cache": mine})
    assert (alone["times_domainbed"], alone["met"]) == ("", "")


@pytest.mark.slow
def test_the_small_size_is_measured_and_stored(tmp_path, monkeypatch):
    monkeypatch.delenv("DOMAINBED_DIR", raising=False)
    assert main(["--small", "--workers", "1", "--rows", "bf16, cache", "--output_dir", str(tmp_path)]) == 0
    (path,) = tmp_path.glob("small-runs-*.csv")
    facts, lines = [], []
    for line in path.read_text().splitlines():
        (facts if line.startswith("# ") else lines).append(line)
    assert "# cpus: " in "\n".join(facts)
    (row,) = csv.DictReader(lines)
    assert row["run"] == "bf16, cache"
    assert min(float(row[name]) for name in ("training_of_floor", "evaluation_of_floor", "seconds")) > 0
