"""Intervals, verdicts and the number of trials, on accuracies of known effect."""

import math

import numpy as np
import pytest

from domainbed_adm.leaderboard.comparison import PairedDifference
from domainbed_adm.studying.outcome import Pilot, compare, pilot, verdict

#: What each environment's difference and each trial's adds, in points.
BETWEEN, WITHIN = 1.0, 2.0


def drawn(random, effect, environments=14, trials=3, between=BETWEEN, within=WITHIN):
    """Accuracies of an arm and a baseline whose difference is ``effect`` on average."""
    arm, baseline = {}, {}
    for env in range(environments):
        own = effect + between * random.standard_normal()
        for trial in range(trials):
            level = 80 + 5 * random.standard_normal()
            baseline["Some", env, trial] = level
            arm["Some", env, trial] = level + own + within * random.standard_normal()
    return arm, baseline


@pytest.mark.parametrize(
    ("interval", "key"),
    [
        ((1.0, 3.0), "better"),
        ((0.2, 3.0), "small gain"),
        ((-3.0, -1.0), "worse"),
        ((-3.0, -0.2), "small loss"),
        ((-0.9, 0.9), "equal"),
        ((-1.5, 0.5), "undecided"),
        ((-0.5, 1.5), "undecided"),
        (None, "undecided"),
    ],
)
def test_the_verdict_follows_from_the_interval(interval, key):
    mean = None if interval is None else sum(interval) / 2
    found = verdict(PairedDifference(42, 14, mean, interval), 1.0, "ADM", "SAM")
    assert found.key == key
    assert found.words.endswith(".")


@pytest.mark.parametrize("effect", [0.0, 2.0])
def test_intervals_cover_and_a_verdict_is_wrong_no_more_often_than_it_says(effect):
    """500 studies of 14 environments and 3 trials; a rate of 5 % has a standard error of 1 %."""
    random = np.random.default_rng(1)
    held, keys = 0, []
    for _ in range(500):
        difference = compare(*drawn(random, effect))
        low, high = difference.interval
        held += low <= effect <= high
        keys.append(verdict(difference, 1.0, "a", "b").key)
    assert abs(held / 500 - 0.95) < 0.03
    if effect == 0:
        found = [key for key in keys if key in {"better", "worse", "small gain", "small loss"}]
        assert len(found) / 500 < 0.08
    else:
        assert not {"worse", "small loss", "equal"} & set(keys)
        assert sum(key in {"better", "small gain"} for key in keys) / 500 > 0.9


def test_a_pilots_spread_is_that_of_its_parts():
    random = np.random.default_rng(2)
    found = [pilot(*drawn(random, 0.0, environments=12, trials=4)) for _ in range(300)]
    assert np.mean([one.within**2 for one in found]) == pytest.approx(WITHIN**2, rel=0.05)
    assert np.mean([one.between**2 for one in found]) == pytest.approx(BETWEEN**2, rel=0.15)
    assert (found[0].n_environments, found[0].n_trials) == (12, 4)


def test_the_number_of_trials_gives_the_power():
    """With as many trials as it says, a difference of the smallest size of interest is found in about 80 %."""
    spread = Pilot(14, 2, BETWEEN, WITHIN)
    trials = spread.trials_for(1.5)
    assert spread.trials_for(10.0) == 1
    random = np.random.default_rng(3)
    found = [compare(*drawn(random, 1.5, trials=trials)).interval[0] > 0 for _ in range(400)]
    fewer = [compare(*drawn(random, 1.5, trials=max(1, trials // 3))).interval[0] > 0 for _ in range(400)]
    assert 0.75 < np.mean(found) < 0.92
    assert np.mean(fewer) < np.mean(found)
    assert Pilot(14, 2, 5.0, 0.1).trials_for(1.0) is None
    assert spread.half_width(3) == pytest.approx(2.1604 * math.sqrt((1 + 4 / 3) / 14), rel=1e-3)


def test_a_pilot_needs_two_environments_and_two_trials():
    random = np.random.default_rng(4)
    assert pilot(*drawn(random, 0.0, environments=1)) is None
    assert pilot(*drawn(random, 0.0, trials=1)) is None
    assert pilot({}, {}) is None
