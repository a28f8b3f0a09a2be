"""How a sweep was made."""

from __future__ import annotations

from typing import Any

from domainbed_adm.recorded_run import Runs
from domainbed_adm.report.section_tables import differing_settings, origin, shared_settings
from tests.runs import as_runs, record


def runs(*hparams: dict[str, Any], **more: Any) -> Runs:
    return as_runs(
        *(
            record((0.5, 0.5), step=step, hparams_seed=seed, hparams=one, **more)
            for seed, one in enumerate(hparams)
            for step in range(2)
        )
    )


def test_what_all_runs_share_and_what_differs() -> None:
    records = runs({"lr": 0.1, "rho": 0.05, "resnet18": True}, {"lr": 0.1, "resnet18": False}, {"resnet18": True})
    assert shared_settings(records, "hparams") == ["lr = 0.1", "rho = 0.05"]
    assert shared_settings(records, "args") == ["holdout_fraction = 0.2"]
    table = differing_settings(records)
    assert table is not None
    assert [[*row.labels, *(cell.text for cell in row.cells)] for row in table.rows] == [
        ["resnet18", "false (1), true (2)", "3"]
    ]
    assert differing_settings(records[:1]) is None


def test_many_values_are_counted() -> None:
    table = differing_settings(runs(*({"lr": 10.0**-i, "name": "abcdefgh"[i]} for i in range(7))))
    assert table is not None
    assert [row.cells[0].text for row in table.rows] == ["7 values, 1e-06 to 1", "7 values"]


def test_facts_of_records_with_and_without_provenance() -> None:
    made = {"version": "1", "git_commit": "abc", "torch": "2.9", "device": "cpu"}
    known = dict(origin(runs({}, {}, provenance=made)))
    assert known["Versions"] == "domainbed_adm 1 (commit abc), torch 2.9"
    assert known["Devices"] == "cpu"
    assert known["Hyperparameter seeds"] == "0, 1 (0 means the defaults)"
    for values, told in (([None], "not recorded"), ([7, 7], "7"), ([7, 8], "7, 8")):
        seeded = [record((0.5, 0.5), trial_seed=trial) for trial, _ in enumerate(values)]
        for one, value in zip(seeded, values, strict=True):
            one["args"]["seed"] = value
        assert dict(origin(as_runs(*seeded)))["Training seeds"] == told
    bare = dict(origin(runs({})))
    assert (bare["Versions"], bare["Devices"], bare["Training seeds"]) == ("not recorded",) * 3


def test_what_is_off_in_all_runs_is_left_out() -> None:
    records = runs({"lr": 0.1, "vit": False, "backbone": None, "weight_decay": 0.0, "cnn_width": 8})
    assert shared_settings(records, "hparams") == ["cnn_width = 8", "lr = 0.1"]
