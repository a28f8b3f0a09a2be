"""What the flags of ``analyze`` ask for, with their defaults. Loads no torch."""

from __future__ import annotations

from dataclasses import dataclass

from domainbed_adm.run_files import MODEL


@dataclass(frozen=True)
class Settings:
    """Which model of each run, and which sample of its data.

    Attributes:
        checkpoint: the model's file in the run's folder.
        data_dir: where the data lie; None: where they lay in training.
        samples: images of each environment; None: 256, or all where there are fewer.
        batch_size: images of each domain in a mini-batch; None: the run's, but at least 64 where no BatchNorm in
            training mode makes the loss depend on it.
        seed: of the sample, the directions and the vectors.
        double: whether to compute in float64.
    """

    checkpoint: str = MODEL
    data_dir: str | None = None
    samples: int | None = None
    batch_size: int | None = None
    seed: int = 0
    double: bool = False


@dataclass(frozen=True)
class HessianSettings:
    """The arguments of ``largest_eigenvalues``, ``hutchinson_trace`` and ``random_rise`` of these names.

    ``rho`` is the radius of the sharpness; None: as ``common_rho`` says.
    """

    eigenvalues: int = 5
    tolerance: float = 1e-3
    max_restarts: int = 100
    trace_tolerance: float = 0.05
    max_vectors: int = 100
    directions: int = 10
    rho: float | None = None


@dataclass(frozen=True)
class LandscapeSettings:
    """Where to compute the loss.

    Attributes:
        points: along one direction, odd.
        plane_points: along each of two, odd.
        radius: of both; 1 reaches as far from each filter as it is long.
    """

    points: int = 41
    plane_points: int = 15
    radius: float = 1.0
