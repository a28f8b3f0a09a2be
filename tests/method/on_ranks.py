"""Trains every case of ``CASES`` in one of several processes, or in one by itself, and keeps where each ended.

``python -m tests.method.on_ranks RANK COUNT STORE OUT``: the ranks meet in the file STORE, each writes OUT.RANK.
"""

import sys
from datetime import timedelta

import torch
import torch.distributed as dist

from domainbed_adm.method.batch_norm import synchronise
from domainbed_adm.method.grid import METHODS
from domainbed_adm.method.ranks import ALONE, Ranks
from tests.test_invariants import EVERY, make
from tests.toys import batch, network, parameters_of

STEPS, SIZES = 6, [5, 2, 6]
#: Scopes, weightings and networks; with dropout ranks draw masks of their own, so that one process is no twin of them.
EXACT = {
    f"{name} {weighting} {scope}": (name, dict(weighting=weighting, curriculum_scope=scope), {})
    for name, weighting in EVERY
    if not METHODS[name].only_by_name or name in {"ASAM", "GSAM", "GSAM_SSPL_GDM"}
    for scope in (("batch", "domain") if METHODS[name].curriculum else ("batch",))
}
REFRESHED = {
    f"refresh {share} {scope}{' batch norm' * norm}": (
        "FSAM_SSPL_ADM",
        dict(weighting="memory", curriculum_scope=scope, adm_refresh=share),
        dict(batch_norm=norm),
    )
    for share in (0.05, 0.4)
    for scope in ("batch", "domain")
    for norm in (False, True)
}
ESTIMATED = {
    f"linear {weighting}": ("SAM_SPL_ADM", dict(weighting=weighting, adm_estimator="linear"), {})
    for weighting in ("both", "descent", "memory")
}
KNOBS = {
    f"knobs {name} {weighting}": (
        name,
        dict(weighting=weighting, curriculum_order="hard_first", warmup_fraction=0.3, difficulty_smoothing=smoothing),
        {},
    )
    for name in ("SAM_SPL_ADM", "SSPL_Random")
    for weighting, smoothing in (("both", 0.0), ("memory", 0.5))
}
BATCH_NORM = {
    f"{name} {weighting} batch norm": (name, dict(weighting=weighting), dict(batch_norm=True))
    for name, weighting in EVERY
    if name in {"ERM", "SAGM", "SPL_GDM", "FSAM_SSPL_ADM"}
}
CASES = EXACT | REFRESHED | ESTIMATED | KNOBS | BATCH_NORM
#: What differs from one process; each rank ends as the others do.
APART = {
    f"local {name} {weighting}": (name, dict(weighting=weighting, ascent="local"), {})
    for name, weighting in EVERY
    if f"{name} {weighting} batch" in EXACT and METHODS[name].flatness and METHODS[name].difficulty in {None, "GDM"}
} | {
    f"local batch norm {ascent}": ("FSAM_SSPL_ADM", dict(ascent=ascent), dict(batch_norm=True, dropout=0.3))
    for ascent in ("global", "local")
}


def train(case, ranks=ALONE, sync=True, sizes=SIZES, dtype=torch.float64):
    """Where a case ends: parameters, what the step keeps, buffers, and the last figures."""
    name, given, options = case
    model = network(**options).to(dtype)
    step = make(name, model=model, **given)
    if options.get(
        "batch_norm"
    ):  # the gradient of a bias before it is 0 but for rounding, which Adam divides by itself
        step.optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    step.ranks = ranks
    if sync:
        synchronise(model, ranks)
    places = torch.arange(sum(sizes))
    for t in range(STEPS):
        x, y = batch(sum(sizes), seed=t % 3, dtype=dtype)
        own = [
            len(ranks.own(part)) if ranks.count == 1 else int((part % ranks.count == ranks.rank).sum())
            for part in places.split(sizes)
        ]
        figures = step(ranks.own(x), ranks.own(y), own, ranks.own(places + t % 3))
    return {
        "parameters": parameters_of(model),
        **{f"state {key}": value for key, value in step.state.items()},
        **{f"buffer {key}": value for key, value in model.named_buffers()},
        "figures": torch.tensor(list(figures.values()), dtype=torch.float64),
    }


def main(rank, count, store, out):
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"file://{store}", rank=rank, world_size=count, timeout=timedelta(seconds=60)
    )
    ranks = Ranks(rank, count)
    ends = {name: train(case, ranks) for name, case in CASES.items()}
    torch.manual_seed(rank)
    ends |= {name: train(case, ranks, sync=False) for name, case in APART.items()}
    torch.save(ends, f"{out}.{rank}")
    dist.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), *sys.argv[3:])
