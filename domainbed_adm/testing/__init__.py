"""Conformance checks for what you add: a difficulty, a curriculum, a flatness rule, an algorithm.

Each check is one call from a test of yours. It raises ``AssertionError`` with a sentence that says what is wrong, and
runs on a CPU in about a second::

    from domainbed_adm.testing import check_algorithm, check_curriculum, check_difficulty, check_flatness

    def test_mine():
        check_difficulty(MyDifficulty())
        check_curriculum(MyCurriculum())
        check_flatness(MyRule())
        check_algorithm(MyAlgorithm)
"""

from domainbed_adm.testing.algorithm import check_algorithm
from domainbed_adm.testing.flatness import check_flatness
from domainbed_adm.testing.parts import check_curriculum, check_difficulty

__all__ = ["check_algorithm", "check_curriculum", "check_difficulty", "check_flatness"]
