"""Conformance checks for what you add: a difficulty, a curriculum, a flatness rule, an algorithm, a command launcher.

Each check is one call from a test of yours. It raises ``AssertionError`` with a sentence that says what is wrong, and
runs on a CPU in about a second; that of a launcher as long as the launcher takes for seven short commands::

    from domainbed_adm import testing

    def test_mine(tmp_path):
        testing.check_difficulty(MyDifficulty())
        testing.check_curriculum(MyCurriculum())
        testing.check_flatness(MyRule())
        testing.check_algorithm(MyAlgorithm)
        testing.check_launcher(MY_LAUNCHER_CARD, tmp_path)
"""

from domainbed_adm.testing.launchers import check_launcher
from domainbed_adm.testing.parts import check_algorithm, check_curriculum, check_difficulty, check_flatness

__all__ = ["check_algorithm", "check_curriculum", "check_difficulty", "check_flatness", "check_launcher"]
