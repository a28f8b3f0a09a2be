"""The loss around the runs' models: what ``analyze landscape`` left in their folders."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from domainbed_adm.analysis.landscape_figures import landscape_panels
from domainbed_adm.analysis.result_files import Landscape, load_landscapes
from domainbed_adm.report.analysis_block import AnalysisBlock, charts, datasets, drawn, ordered, pair, parts

#: Of a landscape's origin, what must be equal where landscapes are compared, and how it is told.
_SETTINGS = {"seed": "seed", "samples": "images of each environment", "batch_size": "batch size", "dtype": "precision"}


def landscape(root: Path, algorithms: Sequence[str]) -> list[AnalysisBlock]:
    """The loss around two models of each dataset; none where ``analyze landscape`` went round no model.

    Where settings differ, of each; of several test environments and trials, the first with most methods is drawn.
    """
    measured = ordered(load_landscapes(root), algorithms)
    found = parts(measured, _settings)
    several = len(found) > len(datasets(measured))
    analyses = []
    for title, alike in found:
        places: dict[str, list[Landscape]] = {}
        for one in alike:
            places.setdefault(_place(one), []).append(one)
        place, there = max(places.items(), key=lambda group: len({one.algorithm for one in group[1]}))
        shown = pair(there)
        note = f"{drawn(shown)} With {place}.{f' {_how(shown[0])}' if several else ''}"
        analyses.append(AnalysisBlock(title, note, charts(title, partial(landscape_panels, shown))))
    return analyses


def _settings(one: Landscape) -> tuple[object, ...]:
    return (*(getattr(one.origin, name) for name in _SETTINGS), one.alphas.tobytes(), one.alphas_2d.tobytes())


def _place(one: Landscape) -> str:
    """Which models it is compared with: those trained alike."""
    origin = one.origin
    hparams = f", hparams {origin.hparams_seed}" if origin.hparams_seed else ""
    return f"test environment {origin.test_name}, trial {origin.trial_seed}{hparams}"


def _how(one: Landscape) -> str:
    """The settings, as those of flatness are told."""
    values = {heading: getattr(one.origin, name) for name, heading in _SETTINGS.items()}
    said = [f"{name}: {'256 at most' if value is None else value}" for name, value in values.items()]
    lengths = f"{one.alphas[-1]:g} along the line, {one.alphas_2d[-1]:g} over the plane"
    return f"{'; '.join(said)}; points: {len(one.alphas)} and {len(one.alphas_2d)} squared; radius: {lengths}."
