"""Seeds equal DomainBed's; counter-based draws depend on nothing but their key."""

import numpy as np

from domainbed_adm.system.seeding import draw_indices, raw_stream, seed_hash

PINNED_RAW = [9365473714716870278, 1755794366786473329]
PINNED_INDICES = [8, 9, 3, 5, 0, 4]
PINNED_WEIGHTED = [2, 0, 2, 2, 2, 2]


def test_seed_hash_equals_domainbeds():
    """Values printed by DomainBed's misc.seed_hash."""
    assert seed_hash(1, 2) == 1981683110
    assert seed_hash("PACS", "ERM", [0, 1], 3, 0) == 1016106617


def test_draws_are_pinned():
    """A run's data must stay the same from version to version."""
    assert raw_stream(2, "minibatch", 0, 1, 2).tolist() == PINNED_RAW
    assert draw_indices(6, 10, None, "minibatch", 0, 1, 2).tolist() == PINNED_INDICES
    assert draw_indices(6, 3, np.array([1.0, 0.0, 3.0]), "minibatch", 0, 1, 2).tolist() == PINNED_WEIGHTED


def test_draws_ignore_the_global_state():
    state = np.random.get_state()[1].copy()
    raw_stream(5, "x")
    assert (np.random.get_state()[1] == state).all()
    assert not np.array_equal(raw_stream(5, 0, 1), raw_stream(5, 1, 0))


def test_draws_are_uniform_and_weighted_draws_follow_their_weights():
    counts = np.bincount(draw_indices(30000, 3, None, "u"), minlength=3)
    assert (abs(counts - 10000) < 400).all()
    weighted = np.bincount(draw_indices(30000, 3, np.array([1.0, 0.0, 2.0]), "w"), minlength=3)
    assert weighted[1] == 0
    assert abs(weighted[2] - 20000) < 400


def test_more_draws_than_items():
    drawn = draw_indices(50, 2, None, "small")
    assert set(drawn.tolist()) == {0, 1}
