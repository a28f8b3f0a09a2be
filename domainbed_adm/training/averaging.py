"""What hparam ``averaging`` does in a run: which weights are evaluated, recorded and kept in ``model.pkl``."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import deepcopy
from typing import Any

from torch import Tensor, nn

from domainbed_adm.errors import UserError
from domainbed_adm.method.averaging import EMA, SWAD, estimate_statistics, has_moving_statistics
from domainbed_adm.training.batches import Schedule, Splits, TrainTask

#: Training batches that BatchNorm's statistics under SWAD's weights are estimated from, as its authors do (khanrc/swad
#: 252190e); at most as many as the run has steps.
STATISTICS_STEPS = 500
#: Before the figures of an evaluation of the last weights, where those of the average have the plain names.
LAST = "last_"

Evaluate = Callable[[], dict[str, float]]


def make_average(
    algorithm: nn.Module, hparams: Mapping[str, Any], splits: Sequence[Splits], sources: Sequence[int]
) -> EMA | SWAD | None:
    """The average that hparam ``averaging`` asks for, of an algorithm that stands on its device.

    Raises:
        UserError: SWAD would have no validation loss.
    """
    kind = hparams.get("averaging", "none")
    if kind == "ema":
        return EMA(algorithm, hparams["ema_decay"])
    if kind == "swad":
        if not all(splits[i].out for i in sources):
            raise UserError(
                "averaging swad goes by the loss on the out-splits of the source environments: --holdout_fraction "
                "must be above 0 and leave an image in each"
            )
        return SWAD(algorithm, *(hparams[f"swad_{name}"] for name in ("n_converge", "n_tolerance", "tolerance_ratio")))
    return None


def schedule_of(average: EMA | SWAD | None, algorithm: nn.Module, schedule: Schedule) -> Schedule:
    """The schedule with the evaluations, and the batches for statistics, that the average needs."""
    if isinstance(average, EMA):
        return schedule.with_average(each_time=True)
    if isinstance(average, SWAD):
        count = min(STATISTICS_STEPS, schedule.n_steps) if has_moving_statistics(algorithm) else 0
        return schedule.with_average([TrainTask(schedule.n_steps + k) for k in range(count)])
    return schedule


def evaluate_average(
    average: EMA | SWAD,
    algorithm: Any,
    sources: Sequence[int],
    is_last: bool,
    evaluate: Evaluate,
    inputs: Callable[[], Iterator[Tensor]],
) -> dict[str, float]:
    """Evaluate at a checkpoint; ``averaged_weights`` says whether the figures are of an average, 1, or of the last, 0.

    EMA: the average at each checkpoint. SWAD: the last weights, whose mean loss on the out-splits of the sources it
    goes by, and after the last step its result, with ``swad_segments``, how many segments are in it, and the steps
    ``swad_start_step`` to ``swad_end_step`` that these span. Where there is an average, the figures of the last weights
    are called ``last_env0_in_acc`` and so on.

    Args:
        average: moved by each step so far.
        algorithm: what it is of.
        sources: the environments trained on.
        is_last: whether this is the run's last checkpoint.
        evaluate: evaluates the algorithm as it is.
        inputs: of the training batches to estimate statistics from, in turn.
    """
    last = evaluate()
    facts = {"averaged_weights": 1}
    if isinstance(average, SWAD):
        average.end_segment(sum(last[f"env{i}_out_nll"] for i in sources) / len(sources))
        if not is_last:
            return {**last, "averaged_weights": 0}
        average.finish()
        taken = average.valley.taken
        facts |= {
            "swad_segments": len(taken),
            "swad_start_step": average.ends[min(taken) - 1] + 1 if min(taken) else 0,
            "swad_end_step": average.ends[max(taken)],
        }
    with average.held():
        if isinstance(average, SWAD) and has_moving_statistics(algorithm):
            estimate_statistics(algorithm, algorithm.predict, inputs())
        figures = evaluate()
    return {**{f"{LAST}{name}": value for name, value in last.items()}, **figures, **facts}


def weights_of(average: EMA | SWAD | None, algorithm: nn.Module) -> dict[str, Any]:
    """What ``model.pkl`` keeps: ``model_dict``, the average where there is one, and then ``last_model_dict`` too.

    ``model_weights`` says what ``model_dict`` has: "last", "ema" or "swad".
    """
    if average is None or not average.average:
        return {"model_dict": algorithm.state_dict(), "model_weights": "last"}
    last = deepcopy(algorithm.state_dict())
    with average.held():
        averaged = deepcopy(algorithm.state_dict())
    kind = "ema" if isinstance(average, EMA) else "swad"
    return {"model_dict": averaged, "last_model_dict": last, "model_weights": kind}
