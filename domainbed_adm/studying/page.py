"""A study as one HTML page and as Markdown."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import TYPE_CHECKING

from markupsafe import Markup

from domainbed_adm.leaderboard.board import versions
from domainbed_adm.report.templates import FOLDER, template
from domainbed_adm.studying.plan import statement
from domainbed_adm.studying.result import Result, mean_accuracy, passes_spent
from domainbed_adm.system.figures import COLOURS, inline, style

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def forest(result: Result) -> Callable[[Axes], None]:
    """A panel: the difference of each arm to the baseline with its interval, and the span of no interest."""

    def draw(axes: Axes) -> None:
        plan = result.plan
        base = plan.primary.baseline
        others = [arm for arm in plan.arms if arm != base][::-1]
        axes.axvspan(-plan.smallest_difference, plan.smallest_difference, color=COLOURS[-1], alpha=0.2, lw=0)
        axes.axvline(0, color=COLOURS[-1], lw=1)
        for place, arm in enumerate(others):
            one = result.difference(arm, base)
            if one.mean is None:
                continue
            colour = COLOURS[3] if arm == plan.primary.arm else COLOURS[0]
            axes.plot(one.mean, place, "o", color=colour, ms=5)
            if one.interval:
                axes.plot(one.interval, (place, place), color=colour, lw=1.8)
        axes.set_yticks(range(len(others)), others)
        axes.set_ylim(-0.6, len(others) - 0.4)
        axes.set_xlabel(f"accuracy minus that of {base}, points")

    return draw


def against_passes(result: Result) -> Callable[[Axes], None]:
    """A panel: mean accuracy against the passes spent."""

    def draw(axes: Axes) -> None:
        for arm, spent in passes_spent(result).items():
            accuracy = mean_accuracy(result.accuracies[arm])
            if accuracy is not None and spent is not None:
                colour = COLOURS[3] if arm == result.plan.primary.arm else COLOURS[0]
                axes.plot(spent, accuracy, "o", color=colour, ms=5)
                axes.annotate(
                    arm, (spent, accuracy), xytext=(5, 0), textcoords="offset points", fontsize=7, va="center"
                )
        axes.margins(x=0.25)
        axes.set_xlabel("passes spent on a run, 1000 F")
        axes.set_ylabel("mean accuracy, %")

    return draw


def _figure(panel: Callable[[Axes], None], height: float) -> Markup:
    from matplotlib.figure import Figure

    with style():
        figure = Figure(figsize=(7.0, height), layout="constrained")
        panel(figure.subplots())
    return Markup(inline(figure))


def page(result: Result, title: str, command: str, now: datetime) -> str:
    """The study as one HTML page that asks nothing of a network."""
    return template("study.html.j2").render(
        title=title,
        command=command,
        now=now,
        css=Markup((FOLDER / "report.css").read_text(encoding="utf-8")),
        result=result,
        plan=result.plan,
        statement=statement(result.plan, result.jobs),
        forest=_figure(forest(result), 0.9 + 0.28 * len(result.plan.arms)),
        costs=_figure(against_passes(result), 3.6),
        tables=result.tables(),
        versions=", ".join(versions([run for runs in result.runs.values() for run in runs])),
    )


def markdown(result: Result, title: str) -> str:
    """The same in Markdown, without figures."""
    lines = [f"# {title}", "", *([result.plan.about, ""] if result.plan.about else [])]
    lines += [f"**{result.verdict.words}**", "", *statement(result.plan, result.jobs)]
    for table in result.tables():
        head = [*table.labels, *table.columns]
        lines += ["", f"## {table.caption}", "", f"| {' | '.join(head)} |", f"|{' --- |' * len(head)}"]
        lines += [f"| {' | '.join([*row.labels, *(cell.text for cell in row.cells)])} |" for row in table.rows]
        lines += ["", table.note]
    return "\n".join(lines) + "\n"
