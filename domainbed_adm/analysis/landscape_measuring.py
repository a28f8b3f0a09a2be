"""The loss around the models of several runs, along the same random directions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from domainbed_adm.analysis.directions import filter_normalised, loss_along, loss_over_plane, symmetric_grid
from domainbed_adm.analysis.landscape_file import Landscape
from domainbed_adm.analysis.runs import Run
from domainbed_adm.analysis.subject import Settings, open_subject
from domainbed_adm.errors import UserError
from domainbed_adm.system.console import ProgressBar
from domainbed_adm.training.model_file import load_model, restore_algorithm


@dataclass(frozen=True)
class Grid:
    """Where to compute the loss.

    Attributes:
        points: along one direction, odd.
        plane_points: along each of two, odd.
        radius: of both; 1 reaches as far from each filter as it is long.
    """

    points: int = 41
    plane_points: int = 15
    radius: float = 1.0


def check_same_shapes(runs: Sequence[Run], checkpoint: str) -> None:
    """Refuse to compare models that have no common directions.

    Raises:
        UserError: two runs' parameters differ in shape.
    """
    first: list[tuple[str, tuple[int, ...]]] = []
    for run in runs:
        algorithm = restore_algorithm(load_model(run.folder / checkpoint))
        shapes = [(name, tuple(param.shape)) for name, param in algorithm.named_parameters() if param.requires_grad]
        first = first or shapes
        if shapes != first:
            raise UserError(
                f"the models of {runs[0].folder} and {run.folder} have parameters of different shapes: directions are "
                "the same only where shapes are. Compare runs of one network"
            )


def measure_landscape(run: Run, settings: Settings, grid: Grid, title: str) -> Landscape:
    """The loss around a run's model, on all source domains pooled and on all test domains pooled.

    Args:
        run: whose model.
        settings: which model and sample; their seed makes the directions.
        grid: where.
        title: of the progress bar.

    Raises:
        UserError: the run cannot be opened, or BatchNorm has too small a mini-batch.
    """
    alphas, alphas_2d = symmetric_grid(grid.points, grid.radius), symmetric_grid(grid.plane_points, grid.radius)
    with open_subject(run, settings) as subject:
        samples = {"source": subject.samples.pooled, "test": subject.samples.test}
        first, second = (filter_normalised(subject.params, settings.seed, number) for number in range(2))
        arrays = {}
        with ProgressBar(title, len(samples) * (grid.points + grid.plane_points**2)) as bar:
            for name, sample in samples.items():
                loss = subject.loss(sample)
                arrays[f"{name}_1d"] = loss_along(loss, first, alphas, bar.advance)
                arrays[f"{name}_2d"] = loss_over_plane(loss, first, second, alphas_2d, bar.advance)
    about = subject.about | {"test_name": samples["test"].name}
    return Landscape(alphas=alphas, alphas_2d=alphas_2d, about=about, **arrays)
