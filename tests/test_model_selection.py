from __future__ import annotations

import itertools

import pytest

from domainbed_adm.model_selection import SELECTION_METHODS
from tests.runs import as_runs, record

TRAINING, LOO, ORACLE = SELECTION_METHODS.values()


def test_names_are_domainbeds() -> None:
    assert {key: method.name for key, method in SELECTION_METHODS.items()} == {
        "training-domain": "training-domain validation set",
        "leave-one-domain-out": "leave-one-domain-out cross-validation",
        "oracle": "test-domain validation set (oracle)",
    }


def test_training_domain_takes_the_best_mean_out_accuracy_of_the_sources() -> None:
    records = [
        record((0.1, 0.99), (0.0, 0.5), (0.0, 0.7), step=0),
        record((0.2, 0.00), (0.0, 0.9), (0.0, 0.4), step=1),
        record((0.3, 0.98), (0.0, 0.6), (0.0, 0.6), step=2),
    ]
    assert TRAINING.sweep_acc(as_runs(*records), 0) == 0.2


def test_training_domain_ties_first_step_last_hparams_seed() -> None:
    tied = [
        record((0.1 * seed + 0.01 * step, 0.0), (0.0, 0.5), step=step, hparams_seed=seed)
        for seed in (2, 0, 1)
        for step in (0, 1)
    ]
    assert TRAINING.sweep_acc(as_runs(*tied), 0) == pytest.approx(0.2)
    assert TRAINING.chosen(as_runs(*tied), 0) == (2, (0.5, pytest.approx(0.2)))


def test_training_domain_ignores_runs_that_hold_out_a_pair() -> None:
    pair = record((0.9, 0.0), (0.0, 0.9), (0.0, 0.9), test_envs=(0, 1))
    assert TRAINING.sweep_acc(as_runs(pair), 0) is None
    assert TRAINING.sweep_acc(as_runs(pair, record((0.4, 0.0), (0.0, 0.1), (0.0, 0.1))), 0) == 0.4


@pytest.mark.parametrize("hole", ["env0_in_acc", "env1_out_acc"])
@pytest.mark.parametrize("null", [True, False])
def test_a_checkpoint_with_a_missing_accuracy_is_passed_over(hole: str, null: bool) -> None:
    whole, broken = record((0.4, 0.1), (0.1, 0.1), step=0), record((0.9, 0.9), (0.9, 0.9), step=1)
    broken |= {hole: None}
    if not null:
        del broken[hole]
    assert TRAINING.sweep_acc(as_runs(whole, broken), 0) == 0.4
    assert TRAINING.sweep_acc(as_runs(broken), 0) is None


def held_out_runs(step: int, test: float, val1: float | None, val2: float | None, seed: int = 0) -> list[dict]:
    """Environment 0 held out alone, with 1, and with 2, where it classifies 1 and 2 so well."""
    return [
        record((test, 0.0), (0.0, 0.0), (0.0, 0.0), step=step, hparams_seed=seed),
        record((0.0, 0.0), (val1, 0.0), (0.0, 0.0), step=step, test_envs=(0, 1), hparams_seed=seed),
        record((0.0, 0.0), (0.0, 0.0), (val2, 0.0), step=step, test_envs=(0, 2), hparams_seed=seed),
    ]


def test_leave_one_domain_out_takes_the_best_mean_accuracy_on_the_other_held_out_environment() -> None:
    records = held_out_runs(0, 0.1, 0.5, 0.5) + held_out_runs(1, 0.2, 0.9, 0.3) + held_out_runs(2, 0.3, 0.2, 0.9)
    for order in itertools.permutations(range(3)):
        assert LOO.sweep_acc(as_runs(*(records[3 * i + j] for i in order for j in range(3))), 0) == 0.2


def test_leave_one_domain_out_ties_first_step_last_hparams_seed() -> None:
    records = [
        one for seed in (1, 0) for step in (1, 0) for one in held_out_runs(step, seed + step / 10, 0.5, 0.5, seed)
    ]
    assert LOO.sweep_acc(as_runs(*records), 0) == 1.0


def test_leave_one_domain_out_needs_every_pair_and_one_single_run() -> None:
    single, *pairs = held_out_runs(0, 0.4, 0.5, 0.5)
    assert LOO.sweep_acc(as_runs(single, *pairs), 0) == 0.4
    assert LOO.sweep_acc(as_runs(single), 0) is None
    assert LOO.sweep_acc(as_runs(single, pairs[0]), 0) is None
    assert LOO.sweep_acc(as_runs(*pairs), 0) is None
    longer = {**single, "args": {**single["args"], "steps": 9}}
    assert LOO.sweep_acc(as_runs(single, longer, *pairs), 0) is None
    assert LOO.sweep_acc(as_runs(*held_out_runs(0, 0.4, None, 0.5)), 0) is None


def test_oracle_takes_the_last_checkpoint_ranked_by_the_test_environment() -> None:
    records = [
        record((0.1, 0.9), step=300, hparams_seed=0),
        record((0.2, 0.6), step=600, hparams_seed=0),
        record((0.3, 0.7), step=600, hparams_seed=1),
        record((0.4, 0.8), step=300, hparams_seed=1),
    ]
    assert ORACLE.sweep_acc(as_runs(*records), 0) == 0.3
    assert ORACLE.sweep_acc(as_runs(*records, record((0.5, None), step=900, hparams_seed=1)), 0) == 0.2


def test_oracle_ties_last_hparams_seed() -> None:
    assert ORACLE.sweep_acc(as_runs(*(record((0.1 * seed, 0.5), hparams_seed=seed) for seed in (2, 1, 0))), 0) == 0.2


@pytest.mark.parametrize("method", SELECTION_METHODS.values(), ids=SELECTION_METHODS)
def test_no_records_no_number(method) -> None:
    assert method.sweep_acc(as_runs(), 0) is None


def test_of_swad_every_method_takes_the_record_of_its_result() -> None:
    """Also where an earlier record, of other weights, has a better accuracy; without a result none counts."""
    better = [
        record((0.9, 0.9), (0.9, 0.9), (0.9, 0.9), step=0, hparams={"averaging": "swad"}),
        record((0.9, 0.9), (0.9, 0.9), (0.9, 0.9), step=0, test_envs=(0, 1), hparams={"averaging": "swad"}),
        record((0.9, 0.9), (0.9, 0.9), (0.9, 0.9), step=0, test_envs=(0, 2), hparams={"averaging": "swad"}),
    ]
    ends = [one | record((0.4, 0.3), (0.2, 0.1), (0.2, 0.1), step=1, swad_segments=3) for one in better]
    ends = [end | {"args": one["args"]} for end, one in zip(ends, better, strict=True)]
    for method in (TRAINING, LOO, ORACLE):
        assert method.sweep_acc(as_runs(*better, *ends), 0) == 0.4
        assert method.sweep_acc(as_runs(*better), 0) is None
    ema = [one | {"hparams": {"averaging": "ema"}} for one in (*better, *ends)]
    assert TRAINING.sweep_acc(as_runs(*ema), 0) == 0.9
