"""What only a GPU can show: device kept, one host sync a step, the same numbers as the CPU."""

import subprocess
import sys

import pytest
import torch

from domainbed_adm.algorithms import Minibatch, get_algorithm_class, training_step
from domainbed_adm.hparams_registry import default_hparams
from domainbed_adm.method.cards import WEIGHTINGS
from domainbed_adm.method.grid import METHODS
from domainbed_adm.method.state import StepState
from tests.runs import read_records
from tests.toys import batch, network, parameters_of

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]

EVERY = [(name, weighting) for name, m in METHODS.items() for weighting in (WEIGHTINGS if m.curriculum else ("both",))]


def make(name, weighting, device, batch_norm=True, **given):
    model = network(batch_norm=batch_norm).to(device)
    hparams = default_hparams(name, "Debug28") | {"weighting": weighting, "total_steps": 4} | given
    return training_step(METHODS[name], model, torch.optim.Adam(model.parameters(), lr=0.02), hparams, StepState())


@pytest.mark.parametrize(("name", "weighting"), EVERY)
def test_equals_the_cpu_and_keeps_the_device(name, weighting):
    ends = []
    for device in ("cpu", "cuda"):
        step = make(name, weighting, device)
        for t in range(4):
            x, y = batch(seed=t % 2)
            step(x.to(device), y.to(device), [5, 4, 3], torch.arange(12) + t)
        assert {p.grad.device.type for p in step.model.parameters()} == {device}
        assert {value.device.type for value in step.state.values()} <= {device}
        ends.append(parameters_of(step.model).cpu())
    torch.testing.assert_close(*ends, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize(("name", "weighting"), EVERY)
def test_update_asks_the_host_once(name, weighting):
    """All figures come in one transfer, with remembered scores too."""
    hparams = default_hparams(name, "Debug28") | {"cnn_width": 8, "weighting": weighting}
    algorithm = get_algorithm_class(name)((3, 28, 28), 2, 2, hparams).cuda()
    minibatches = [
        Minibatch(torch.rand(4, 3, 28, 28).cuda(), torch.randint(2, (4,)).cuda(), torch.arange(4) + 4 * k)
        for k in range(2)
    ]
    algorithm.update(minibatches)
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with pytest.warns(UserWarning, match="synchroniz") as caught:
            algorithm.update(minibatches)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert len(caught) == 1


@pytest.mark.parametrize("batch_norm", [False, True])
def test_refreshed_scores_equal_the_cpus_and_ask_the_host_once(batch_norm):
    kept = []
    for device in ("cpu", "cuda"):
        step = make("SAM_SSPL_ADM", "memory", device, batch_norm, adm_refresh=0.25)
        batches = [[tensor.to(device) for tensor in batch(seed=t % 2)] for t in range(4)]
        for t, (x, y) in enumerate(batches):
            torch.cuda.set_sync_debug_mode("error" if t == 3 else "default")
            try:
                step.backward(x, y, [5, 4, 3], torch.arange(12) + t)
            finally:
                torch.cuda.set_sync_debug_mode("default")
            step.apply()
        kept.append([step.state[name].cpu() for name in ("difficulty_memory", "difficulty_scored_at")])
        assert step.state["difficulty_memory"].device.type == device
        assert step.state["difficulty_scored_at"].device.type == "cpu"  # so that choosing does not wait
    torch.testing.assert_close(*kept, rtol=1e-6, atol=1e-8)


def test_the_first_half_of_a_step_asks_nothing():
    step = make("FSAM_SSPL_ADM", "both", "cuda")
    x, y = (tensor.cuda() for tensor in batch())
    step(x, y)
    torch.cuda.set_sync_debug_mode("error")
    try:
        figures = step.backward(x, y)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert step.apply() == {name: figure.item() for name, figure in figures.items()}


@pytest.mark.parametrize("kind", ["bf16", "fp16"])
@pytest.mark.parametrize(("name", "weighting"), EVERY)
def test_low_precision_has_the_direction_of_fp32(name, weighting, kind):
    gradients = []
    for enabled in (False, True):
        step = make(name, weighting, "cuda")
        step.model.float()
        step.scaler = torch.amp.GradScaler("cuda", init_scale=2.0**10) if kind == "fp16" else None
        with torch.autocast("cuda", {"bf16": torch.bfloat16, "fp16": torch.float16}[kind], enabled=enabled):
            step(*(tensor.cuda() for tensor in batch(dtype=torch.float32)), [5, 4, 3], torch.arange(12))
        gradients.append(torch.cat([p.grad.flatten() for p in step.model.parameters()]))
    assert torch.cosine_similarity(*gradients, dim=0) > 0.99


@pytest.mark.parametrize("count", [1, 2])
def test_a_run_on_several_gpus_is_that_on_one(count, tmp_path):
    if torch.cuda.device_count() < count:
        pytest.skip(f"needs {count} CUDA devices")
    flags = ["--dataset", "Debug28", "--algorithm", "FSAM_SSPL_ADM", "--steps", "6", "--checkpoint_freq", "3"]
    flags += ["--hparams", '{"cnn_width": 8, "batch_size": 4, "weighting": "memory"}']
    losses = []
    for devices in (1, count):
        folder = tmp_path / str(devices)
        command = [sys.executable, "-m", "domainbed_adm", "train", *flags, "--output_dir", str(folder)]
        assert subprocess.run([*command, "--devices", str(devices)], check=False, timeout=300).returncode == 0
        losses.append([record["loss"] for record in read_records(folder)])
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)


def test_nccl_carries_what_ranks_exchange(tmp_path):
    """With one GPU, so that the calls are checked wherever there is any."""
    code = """
import sys, torch
from domainbed_adm.method.ranks import Ranks
from domainbed_adm.training.devices import join
join(Ranks(0, 1), sys.argv[1])
ranks = Ranks(0, 1)
own = torch.arange(3.0, device="cuda")
ranks._reduce(own), ranks._reduce(torch.arange(2))
parts = [torch.empty_like(own)]
torch.distributed.all_gather(parts, own)
assert parts[0].tolist() == [0, 1, 2]
torch.distributed.destroy_process_group()
"""
    command = [sys.executable, "-c", code, str(tmp_path / "meeting")]
    assert subprocess.run(command, check=False, timeout=120).returncode == 0


def test_sam_needs_at_most_one_more_copy_of_the_parameters():
    peaks = {}
    for name in ("ERM", "SAM"):
        hparams = default_hparams(name, "PACS") | {"resnet18": True, "pretrained": False}
        algorithm = get_algorithm_class(name)((3, 64, 64), 2, 1, hparams).cuda()
        minibatches = [(torch.rand(2, 3, 64, 64).cuda(), torch.tensor([0, 1]).cuda())]
        algorithm.update(minibatches)
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        algorithm.update(minibatches)
        peaks[name] = torch.cuda.max_memory_allocated() - before
        size = sum(p.numel() * p.element_size() for p in algorithm.parameters())
        del algorithm
    assert peaks["SAM"] - peaks["ERM"] <= 1.05 * size
