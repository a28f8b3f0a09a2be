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
    results = ordered(load_landscapes(root), algorithms)
    groups = parts(results, _settings)
    blocks = []
    for title, alike in groups:
        places: dict[str, list[Landscape]] = {}
        for result in alike:
            places.setdefault(_place(result), []).append(result)
        place, there = max(places.items(), key=lambda group: len({result.algorithm for result in group[1]}))
        shown = pair(there)
        how = f" {_how(shown[0])}" if len(groups) > len(datasets(results)) else ""
        blocks.append(
            AnalysisBlock(title, f"{drawn(shown)} With {place}.{how}", charts(title, partial(landscape_panels, shown)))
        )
    return blocks


def _settings(result: Landscape) -> tuple[object, ...]:
    return (*(getattr(result, name) for name in _SETTINGS), result.alphas.tobytes(), result.alphas_2d.tobytes())


def _place(result: Landscape) -> str:
    """Which models it is compared with: those trained alike."""
    hparams = f", hparams {result.hparams_seed}" if result.hparams_seed else ""
    return f"test environment {result.test_name}, trial {result.trial_seed}{hparams}"


def _how(result: Landscape) -> str:
    """The settings, as those of flatness are told."""
    values = {heading: getattr(result, name) for name, heading in _SETTINGS.items()}
    told = [f"{name}: {'256 at most' if value is None else value}" for name, value in values.items()]
    lengths = f"{result.alphas[-1]:g} along the line, {result.alphas_2d[-1]:g} over the plane"
    return f"{'; '.join(told)}; points: {len(result.alphas)} and {len(result.alphas_2d)} squared; radius: {lengths}."
