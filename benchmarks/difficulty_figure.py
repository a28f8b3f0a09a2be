"""Draw docs/assets/difficulty.svg from what ``make quickstart`` left: how difficulties change under ERM and SAM.

python -m benchmarks.difficulty_figure results/quickstart docs/assets/difficulty.svg
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from domainbed_adm import load_runs
from domainbed_adm.analysis.difficulty import load_traces
from domainbed_adm.system import figures

_LINES = {"ERM": "--", "SAM": "-"}


def main(folder: Path, path: Path) -> None:
    """Left the median score, right its rank correlation with being right at the end."""
    methods = {method.algorithm: method for method in load_traces(load_runs(folder))}
    with figures.style():
        figure = Figure(figsize=(7.6, 2.7))
        left, right = figure.subplots(1, 2)
        for measure, colour in zip(("Loss", "GDM", "ADM"), figures.COLOURS, strict=False):
            for name, line in _LINES.items():
                method, label = methods[name], f"{measure}, {name}"
                left.plot(method.step, np.median(method.scores(measure), axis=1), line, color=colour, label=label)
                right.plot(method.step, method.figures[measure]["correctness_correlation"], line, color=colour)
        left.set(title=f"median score, {len(methods['SAM'].traces)} runs of each method", xlabel="step")
        figures.logarithmic(left, "y")
        right.axhline(0, color="gray", linewidth=0.8, linestyle=":")
        right.set(title="rank correlation with being right at the end", xlabel="step")
        told = "above 0: the images called hard\nare those it gets right"
        right.text(1, 0.02, told, transform=right.get_yaxis_transform(), ha="right", va="bottom", fontsize=7)
        figure.legend(loc="outside lower center", ncols=6)
    figures.save(figure, path)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
