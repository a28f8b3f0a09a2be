"""The top of the page: what beats the baseline, and what to bear in mind."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

pytest.importorskip("matplotlib")

from scipy import stats

from domainbed_adm.leaderboard import Board
from domainbed_adm.leaderboard.comparison import paired_difference
from domainbed_adm.model_selection import SELECTION_METHODS
from domainbed_adm.report.points import Interval, Point, against, forest
from domainbed_adm.report.section_analyses import AnalysisBlock
from domainbed_adm.report.section_verdict import Verdict, against_passes, passes_of, student_p, verdicts
from domainbed_adm.report.section_warnings import warned
from domainbed_adm.report.sweep_folder import RunFolder, SweepFolder
from tests.runs import as_runs, record

ORACLE = SELECTION_METHODS["oracle"]
BASE = (0.60, 0.62, 0.64, 0.66, 0.68, 0.70)


def board(gains: dict[str, list[float]], base: str = "SAM", trials: int = 1, **more: object) -> Board:
    """Runs of six environments: each method is above the baseline by these gains, in points."""
    records = [
        record(
            *[(value + gain / 100, value)] * 6,
            test_envs=(env,),
            dataset="Mine",
            algorithm=name,
            trial_seed=trial,
            **more,
        )
        for name, own in {base: [0.0] * 6, **gains}.items()
        for env, (value, gain) in enumerate(zip(BASE, own, strict=True))
        for trial in range(trials)
    ]
    return Board(as_runs(*records), [ORACLE])


def verdict(gains: dict[str, list[float]], base: str = "SAM") -> Verdict:
    (found,) = verdicts(board(gains, base), ORACLE)
    return found


def test_a_method_that_is_better_everywhere_beats_the_baseline() -> None:
    found = verdict({"GSAM": [2, 2.2, 1.8, 2.1, 1.9, 2]})
    assert found.headline == "GSAM beats SAM by 2.0 points."
    assert found.lists == [
        ("Better", ["GSAM +2.0 points (95 % interval +1.9 to +2.1; 67.0 against 65.0 %)"], -5),
    ]
    assert found.basis.startswith("n: 6 test environments, one trial of each.")
    assert "corrected" not in found.basis


def test_no_difference_shown_and_worse() -> None:
    assert verdict({"ASAM": [3, -3, 4, -2, 1, -1]}, "ERM").headline == "No difference shown between ASAM and ERM."
    assert verdict({"ASAM": [-3, -3.1, -4, -2, -3, -3]}, "ERM").headline == "ASAM is worse than ERM."
    found = verdict({"ASAM": [3, -3, 4, -2, 1, -1], "GSAM": [-3, -3.1, -4, -2, -3, -3]})
    assert found.headline == "No method is shown to beat SAM; 1 of 2 are worse."
    assert [begins for begins, _, _ in found.lists] == ["Worse", "No difference shown"]


def test_one_of_many_whose_interval_leaves_out_0_by_luck_is_no_find() -> None:
    lucky = [1, 0.1, 1.4, 0.2, 1.2, 0.3]
    names = ["GSAM", "ASAM", "SAGM", "FSAM", "SAM_SPL_ADM", "SAM_SSPL_ADM"]
    alone = verdict({"GSAM": lucky})
    many = verdict({name: lucky if i == 0 else [1, -1, 2, -2, 0.5, -0.5] for i, name in enumerate(names)})
    assert alone.headline == "GSAM beats SAM by 0.7 points."
    assert many.headline == "No method is shown to beat SAM."
    assert "by luck alone" in many.lists[0][1][0]
    assert "corrected for 6 comparisons" in many.basis


def test_one_environment_judges_nothing() -> None:
    records = [record((0.5 + i / 10, 0.5), (0.5, 0.5), algorithm=name) for i, name in enumerate(("SAM", "GSAM"))]
    (found,) = verdicts(Board(as_runs(*records), [ORACLE]), ORACLE)
    assert found.headline == "Nothing can be said against SAM: a single test environment: no interval."
    assert verdicts(Board(as_runs(records[0]), [ORACLE]), ORACLE) == []


def test_p_is_that_of_scipy() -> None:
    values = [2.0, -1, 3, 0.5]
    found = student_p(paired_difference(values, [0] * 4, range(4)))
    assert found == pytest.approx(stats.ttest_1samp(values, 0).pvalue)
    assert student_p(paired_difference([1.0], [0], [0])) is None


def test_passes_of_a_run() -> None:
    (plain,) = as_runs(record((0.5, 0.5), step=999, algorithm="ERM"))
    (sam,) = as_runs(record((0.5, 0.5), step=499, algorithm="SAM"))
    (unknown,) = as_runs(record((0.5, 0.5), step=499, algorithm="Theirs"))
    assert (passes_of(plain), passes_of(sam), passes_of(unknown)) == (3.0, 3.0, None)
    (chart,) = against_passes(board({"ERM": [0.0] * 6}, step=99), ORACLE)
    assert "<title>SAM: 65.0 %, 0.6 thousand passes</title>" in chart.svg


def test_points_say_their_values_and_escape_names() -> None:
    rows = [Interval("<b>", 1.0, (-1.0, 3.0), "open", "<b> +1"), Interval("x" * 60, -2.0, None, "worse", "x")]
    drawn = forest(rows)
    assert "<b>" not in drawn
    assert "<title>&lt;b&gt; +1</title>" in drawn
    assert "x" * 40 not in drawn
    assert drawn.count("<circle") == 2
    places = [
        float(x) for x in re.findall(r'cx="([0-9.]+)"', against([Point("a", 3, 60, "a"), Point("b", 6, 70, "b")]))
    ]
    assert 44 < places[0] < places[1] < 560


def test_warnings_of_trials_runs_difficulty_losses_and_threads() -> None:
    def words(own: Board, untrusted: list[str], undrawn: str, blocks: list[AnalysisBlock], state: str) -> list[str]:
        sweep = SweepFolder(Path(), own.runs, [RunFolder(Path(), state, "a")], [])
        return [one.words for one in warned(sweep, own, untrusted, undrawn, blocks)]

    good = board({"ERM": [0.0] * 6}, trials=2)
    assert words(good, [], "", [], "done") == []
    block = AnalysisBlock("Mine", "", [], warnings=["Mine: ADM ranks backwards here"])
    found = words(board({"ERM": [0.0] * 6}), ["a run"], "Not drawn: 1 loss.", [block], "failed")
    assert found == [
        "One trial (n = 1): another seed may turn any difference around. --n_trials 3 is the custom.",
        "One run has exploded or ended no better than chance, and counts in every mean.",
        "1 of 1 runs have failed or are not finished: numbers may change.",
        "Mine: ADM ranks backwards here",
        "Not drawn: 1 loss.",
    ]
    unlike = [record((0.5, 0.5), (0.5, 0.5), trial_seed=i, provenance={"threads": 1 + i}) for i in range(2)]
    assert "Runs differ in numbers of threads: 1 (1), 2 (1)." in words(Board(as_runs(*unlike), []), [], "", [], "done")
