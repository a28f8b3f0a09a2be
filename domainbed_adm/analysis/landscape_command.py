"""What ``analyze landscape`` does: computes the loss around each run's model, keeps it beside the model, draws all."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from domainbed_adm.analysis.directions import filter_normalised, loss_along, loss_over_plane, symmetric_grid
from domainbed_adm.analysis.result_files import Landscape, save_landscape
from domainbed_adm.analysis.runs import labels, with_checkpoint
from domainbed_adm.analysis.settings import LandscapeSettings, Settings
from domainbed_adm.analysis.trained_model import TrainedModel, TrainedModels
from domainbed_adm.recorded_run import Run
from domainbed_adm.system import figures
from domainbed_adm.system.console import ProgressBar


def analyze_landscape(runs: Sequence[Run], settings: Settings, where: LandscapeSettings, output: Path) -> None:
    """Compute the loss around each run's model, keep it in the run's folder, and draw all.

    Args:
        runs: those without the checkpoint are left out.
        settings: which model and sample.
        where: the positions.
        output: figure to draw.

    Raises:
        UserError: no run has the checkpoint, a model or its data cannot be read, parameters differ in shape, a file
            cannot be written.
    """
    figures.check_output(output)
    runs = with_checkpoint(runs, settings.checkpoint)
    models, landscapes = TrainedModels(runs, settings), []
    models.check_same_shapes()
    for i, (run, name) in enumerate(zip(runs, labels([run.args for run in runs]), strict=True)):
        start = time.perf_counter()
        with models.open(i) as model:
            landscapes.append(measure_landscape(model, where, settings.seed, name))
        path = save_landscape(landscapes[-1], run.folder)
        print(
            f"[{i + 1}/{len(runs)}] {name}: {path} ({time.perf_counter() - start:.0f} s)", file=sys.stderr, flush=True
        )
    from domainbed_adm.analysis.landscape_figures import draw_landscape

    figures.save(draw_landscape(landscapes), output)
    print(f"figure: {output}")


def measure_landscape(model: TrainedModel, where: LandscapeSettings, seed: int, title: str) -> Landscape:
    """The loss around a model, on all source domains pooled and on all test domains pooled.

    Args:
        model: the middle.
        where: the positions.
        seed: of the directions.
        title: of the progress bar.

    Raises:
        UserError: BatchNorm has too small a mini-batch.
    """
    alphas, alphas_2d = symmetric_grid(where.points, where.radius), symmetric_grid(where.plane_points, where.radius)
    samples = {"source": model.samples.pooled, "test": model.samples.test}
    first, second = (filter_normalised(model.params, seed, number) for number in range(2))
    arrays: dict[str, Any] = {}
    with ProgressBar(title, len(samples) * (where.points + where.plane_points**2)) as bar:
        for name, sample in samples.items():
            loss = model.loss(sample)
            arrays[f"{name}_1d"] = loss_along(loss, first, alphas, bar.advance)
            arrays[f"{name}_2d"] = loss_over_plane(loss, first, second, alphas_2d, bar.advance)
    return Landscape(**model.about, test_name=model.samples.test.name, alphas=alphas, alphas_2d=alphas_2d, **arrays)
