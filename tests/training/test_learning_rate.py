"""Learning rates against torch's schedulers, base optimizers and label smoothing, exact on resume."""

import json
import warnings

import pytest
import torch

from domainbed_adm.algorithms import base_optimizer, loss_of
from domainbed_adm.errors import UserError
from domainbed_adm.training.learning_rate import LearningRate, factor
from tests.training.test_resume import assert_same, outcome, train, train_killed

NETWORK = torch.nn.Linear(2, 2)
RATES = {"lr": 0.1, "weight_decay": 0.0}
STEPS = {"lr_schedule": "steps", "lr_milestones": [0.3, 0.6, 0.8], "lr_gamma": 0.2}


def torch_rates(scheduler, optimizer, n):
    rates = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of steps of an optimizer that has no gradients
        for _ in range(n):
            rates.append(optimizer.param_groups[0]["lr"])
            scheduler.step()
    return rates


@pytest.mark.parametrize("n", [1, 7, 200])
def test_cosine_and_steps_equal_torch(n):
    optimizer = torch.optim.SGD(NETWORK.parameters(), lr=0.1)
    cosine = torch_rates(torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, n), optimizer, n)
    assert [0.1 * factor(t, n, {"lr_schedule": "cosine"}) for t in range(n)] == pytest.approx(cosine, abs=1e-12)
    optimizer = torch.optim.SGD(NETWORK.parameters(), lr=0.1)
    milestones = [-(-n * k // 10) for k in (3, 6, 8)]  # the first step at or after the share, in integers
    drops = torch_rates(torch.optim.lr_scheduler.MultiStepLR(optimizer, milestones, 0.2), optimizer, n)
    assert [0.1 * factor(t, n, STEPS) for t in range(n)] == pytest.approx(drops, abs=1e-12)


def test_warm_up_rises_linearly_and_the_cosine_follows_it():
    hparams = {"lr_schedule": "cosine", "warmup_steps": 4}
    assert [factor(t, 10, hparams) for t in range(5)] == [0.25, 0.5, 0.75, 1.0, 1.0]
    assert factor(9, 10, hparams) == pytest.approx(factor(5, 6, {"lr_schedule": "cosine"}))
    assert factor(4, 10, {"warmup_steps": 4}) == 1.0


def test_every_group_keeps_its_own_rate_also_after_a_state_was_loaded():
    optimizer = torch.optim.SGD([{"params": [NETWORK.weight], "lr": 1.0}, {"params": [NETWORK.bias], "lr": 2.0}])
    rate = LearningRate([optimizer], 2, {"lr_schedule": "cosine", "warmup_steps": 0})
    rate.set(1)
    optimizer.load_state_dict(optimizer.state_dict())
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([0.5, 1.0])
    rate.set(0)
    assert [group["lr"] for group in optimizer.param_groups] == [1.0, 2.0]


def test_a_schedule_that_cannot_be_is_refused():
    with pytest.raises(UserError, match="warmup_steps 9 must be below the run's 9 steps"):
        LearningRate([torch.optim.SGD(NETWORK.parameters())], 9, {"warmup_steps": 9})
    with pytest.raises(UserError, match="need an algorithm whose optimizer is an attribute"):
        LearningRate([], 9, {"lr_schedule": "cosine", "warmup_steps": 0})


@pytest.mark.parametrize(
    ("name", "kind"), [("adam", torch.optim.Adam), ("adamw", torch.optim.AdamW), ("sgd", torch.optim.SGD)]
)
def test_base_optimizers(name, kind):
    optimizer = base_optimizer(NETWORK, {**RATES, "optimizer": name, "momentum": 0.8, "nesterov": True})
    assert type(optimizer) is kind
    assert optimizer.defaults["lr"] == 0.1
    if name == "sgd":
        assert (optimizer.defaults["momentum"], optimizer.defaults["nesterov"]) == (0.8, True)


def test_hparams_of_older_runs_mean_adam_without_smoothing():
    assert type(base_optimizer(NETWORK, RATES)) is torch.optim.Adam
    logits, y = torch.randn(4, 3), torch.tensor([0, 1, 2, 0])
    assert torch.equal(loss_of({})(logits, y), torch.nn.functional.cross_entropy(logits, y, reduction="none"))


def test_smoothed_labels():
    logits, y = torch.randn(4, 3, dtype=torch.float64), torch.tensor([0, 1, 2, 0])
    target = 0.9 * torch.nn.functional.one_hot(y, 3) + 0.1 / 3
    by_hand = -(target * logits.log_softmax(1)).sum(1)
    assert torch.allclose(loss_of({"label_smoothing": 0.1})(logits, y), by_hand, atol=1e-14)


@pytest.mark.parametrize(
    "hparams",
    [
        {"optimizer": "sgd", "lr": 0.05, "nesterov": True, "lr_schedule": "cosine", "label_smoothing": 0.1},
        {"optimizer": "sgd", "lr": 0.05, "lr_schedule": "steps", "lr_milestones": [0.4, 0.6]},
        {"optimizer": "adamw", "weight_decay": 0.1, "warmup_steps": 3},
    ],
)
@pytest.mark.parametrize("name", ["ERM", "FSAM_SSPL_ADM"])
def test_optimizers_and_schedules_resume_exactly(tmp_path, monkeypatch, name, hparams):
    assert train(tmp_path / "whole", name, **hparams) == 0
    train_killed(monkeypatch, 4, tmp_path / "broken", name, "--checkpoint_every", "1", **hparams)
    assert train(tmp_path / "broken", name, "--checkpoint_every", "1", **hparams) == 0
    assert_same(tmp_path / "whole", tmp_path / "broken")
    assert train(tmp_path / "other", name) == 0
    weights, others = (outcome(tmp_path / folder)[1] for folder in ("whole", "other"))
    assert any(not torch.equal(weights[key], others[key]) for key in weights)


def test_a_checkpoint_of_a_version_without_these_hparams_goes_on(tmp_path, monkeypatch):
    """An hparam that an older run lacks counts as its default."""
    from domainbed_adm.training import resume

    assert train(tmp_path / "whole", "SAM") == 0
    new = {"optimizer", "momentum", "nesterov", "lr_schedule", "lr_milestones", "lr_gamma", "warmup_steps"}
    identity = resume.identity
    with monkeypatch.context() as patch:
        patch.setattr(resume, "identity", lambda a, h: identity(a, {k: v for k, v in h.items() if k not in new}))
        train_killed(monkeypatch, 4, tmp_path / "broken", "SAM", "--checkpoint_every", "1")
    records = tmp_path / "broken" / "results.jsonl"
    lines = [json.loads(line) for line in records.read_text().splitlines()]
    for line in lines:
        line["hparams"] = {name: value for name, value in line["hparams"].items() if name not in new}
    records.write_text("".join(json.dumps(line, sort_keys=True) + "\n" for line in lines))
    assert train(tmp_path / "broken", "SAM", "--checkpoint_every", "1") == 0
    _, weights = outcome(tmp_path / "broken")
    assert all(torch.equal(value, outcome(tmp_path / "whole")[1][key]) for key, value in weights.items())
