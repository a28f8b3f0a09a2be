"""The conformance checks pass what is right, and tell the author of what is wrong what it is."""

import pytest
import torch

from domainbed_adm import ADM, FSAM, GDM, SAGM, SAM, SPL, SSPL, Loss, algorithms
from domainbed_adm.method.flatness import Plain
from domainbed_adm.testing import check_algorithm, check_curriculum, check_difficulty, check_flatness


@pytest.mark.parametrize("difficulty", [Loss(), GDM(), ADM(), ADM(estimator="linear")], ids=str)
def test_our_difficulties_conform(difficulty):
    check_difficulty(difficulty)


@pytest.mark.parametrize("curriculum", [SPL(), SPL(mode="threshold"), SSPL(), SSPL(eta=0.5)], ids=str)
def test_our_curricula_conform(curriculum):
    check_curriculum(curriculum)


@pytest.mark.parametrize("rule", [Plain(), SAM(), SAM(rho=0), SAGM(), FSAM()], ids=str)
def test_our_flatness_rules_conform(rule):
    check_flatness(rule)


@pytest.mark.parametrize("name", algorithms.ALGORITHMS)
def test_our_algorithms_conform(name):
    check_algorithm(algorithms.get_algorithm_class(name))


class Wrong:
    needs_input_gradient = False

    def __init__(self, score):
        self.score = score

    def __call__(self, probe):
        return self.score(probe)


def trains_the_model(probe):
    loss = probe.losses_at(probe.x)
    torch.rand(1)
    return loss


def scales_in_place(probe):
    probe.losses.mul_(2)
    return probe.losses


COUNTER = iter(range(10**6))
DIFFICULTIES = {
    r"must have shape \(12,\), have \(\)": lambda probe: probe.losses.mean(),
    "must be a tensor, are list": lambda probe: probe.losses.tolist(),
    "must be finite": lambda probe: (probe.losses - probe.losses.min()).log().abs(),
    "must be >= 0, the smallest is -": lambda probe: -probe.losses,
    "must be detached": lambda probe: probe.losses.clone().requires_grad_(),
    "must keep the dtype torch.float64, have torch.float32": lambda probe: probe.losses.float(),
    "changed the state of the random generator": trains_the_model,
    "changed the inputs or losses that it got": scales_in_place,
    "asks for probe.input_gradient: set needs_input_gradient": lambda probe: (
        probe.input_gradient().flatten(1).norm(dim=1)
    ),
    "place in the batch": lambda probe: probe.losses * torch.arange(1, 13),
    "same scores twice": lambda probe: probe.losses + next(COUNTER),
}


@pytest.mark.parametrize("message", DIFFICULTIES)
def test_a_wrong_difficulty_is_told(message):
    with pytest.raises(AssertionError, match=message):
        check_difficulty(Wrong(DIFFICULTIES[message]))


def test_a_difficulty_that_touches_the_model_is_told():
    """Through the closure that it is given it reaches the modules; nothing keeps it from changing them."""

    def unfreezes(probe):
        model = probe.losses_at.func.__self__.model
        model[0].training = not model[0].training
        return probe.losses

    def shifts(probe):
        next(probe.losses_at.func.__self__.model.buffers()).add_(1)
        return probe.losses

    for touch, message in ((unfreezes, "the mode of a module"), (shifts, "parameters or buffers of the model")):
        with pytest.raises(AssertionError, match=message):
            check_difficulty(Wrong(touch))


def test_a_difficulty_without_its_flag_is_told():
    with pytest.raises(AssertionError, match="needs_input_gradient must be True or False, is None"):
        check_difficulty(lambda probe: probe.losses)


CURRICULA = {
    r"must have shape \(1,\), have \(\)": lambda scores, progress: scores.mean(),
    "must be finite": lambda scores, progress: scores / scores.std(),
    "must be >= 0": lambda scores, progress: scores - 0.5,
    "keep the dtype": lambda scores, progress: (scores > -1).long(),
    "are all 0": lambda scores, progress: (scores < 0).to(scores.dtype),
    "changed the scores": lambda scores, progress: scores.add_(1),
    "place in the batch": lambda scores, progress: torch.linspace(1, 2, len(scores), dtype=scores.dtype),
}


@pytest.mark.filterwarnings("ignore:std")
@pytest.mark.parametrize("message", CURRICULA)
def test_a_wrong_curriculum_is_told(message):
    with pytest.raises(AssertionError, match=message):
        check_curriculum(CURRICULA[message])


class Rule:
    """SAM, done wrong: ``call(self, point)``."""

    def __init__(self, call, passes=1):
        self.call, self.passes, self.count = call, passes, 0

    def __call__(self, point):
        return self.call(self, point)


def moves(self, point):
    with torch.no_grad():
        point.params[0].add_(1)
    return point.gradient_here()


def forgets_to_go_back(self, point):
    before = point.params[0].detach().clone()
    with torch.no_grad():
        point.params[0].add_(1)
        there = point.gradient_here()
        point.params[0].copy_(before)
    return there


def sets_grad(self, point):
    point.params[0].grad = point.gradient[0]
    return point.gradient


def draws(self, point):
    torch.rand(1)
    return point.gradient


def keeps_a_count(self, point):
    self.count += 1
    return [part if part is None else part * self.count for part in point.gradient]


def divides(self, point):
    return [part if part is None else part / part.norm() for part in point.gradient]


def writes_a_number(self, point):
    point.state["count"] = 1
    return point.gradient


RULES = {
    "passes must be an integer >= 1, is 0": Rule(draws, 0),
    "must put the parameters back, bit for bit": Rule(moves, 2),
    "put the parameters back where the gradient cannot": Rule(forgets_to_go_back, 2),
    "asked for the gradient 1 times: its passes must be 2, are 1": Rule(moves),
    "changed .grad": Rule(sets_grad),
    "random generator": Rule(draws),
    "must return 4 gradients, returned 3": Rule(lambda self, point: point.gradient[:-1]),
    "must be a tensor, is NoneType": Rule(lambda self, point: [None] * 4),
    r"must have shape \(3, 2\), has \(6,\)": Rule(
        lambda self, point: [point.gradient[0].flatten(), *point.gradient[1:]]
    ),
    "must keep the dtype torch.float32": Rule(
        lambda self, point: [p if p is None else p.double() for p in point.gradient]
    ),
    "must be finite, also where the gradient is 0": Rule(divides),
    "where the gradient is None it must return None": Rule(
        lambda self, point: [*point.gradient[:-1], point.params[-1]]
    ),
    "its state must be tensors, 'count' is int": Rule(writes_a_number),
    "from a copy of its state it goes on otherwise": Rule(keeps_a_count),
}


@pytest.mark.parametrize("message", RULES)
def test_a_wrong_flatness_rule_is_told(message):
    with pytest.raises(AssertionError, match=message):
        check_flatness(RULES[message])


def wrong(**methods):
    return type("Mine", (algorithms.ERM,), methods)


def updating(change):
    """ERM whose ``update`` does something wrong: ``change(self, minibatches, figures)`` returns its figures."""

    def update(self, minibatches, unlabeled=None):
        return change(self, minibatches, algorithms.ERM.update(self, minibatches))

    return wrong(update=update)


def counts(self, minibatches, figures):
    self.calls = getattr(self, "calls", 0) + 1
    with torch.no_grad():
        next(self.parameters()).add_(self.calls)
    return figures


def in_place(self, minibatches, figures):
    minibatches[0][0].zero_()
    return figures


def halves(self, minibatches, figures):
    self.network.bfloat16()
    return figures


def moving_predict(self, x):
    next(self.parameters()).data.add_(1)
    return self.network(x)


ALGORITHMS = {
    "must return a dict of figures, returned None": updating(lambda self, batches, figures: None),
    "must return 'loss', returned cost": updating(lambda self, batches, figures: {"cost": figures["loss"]}),
    "must return floats, 'loss' is a Tensor": updating(
        lambda self, b, figures: {"loss": torch.tensor(figures["loss"])}
    ),
    "'loss' = nan": updating(lambda self, batches, figures: {"loss": float("nan")}),
    "changed its minibatches": updating(in_place),
    "leave the algorithm in training mode": updating(lambda self, batches, figures: self.eval() and figures),
    "changed the dtype or the names": updating(halves),
    "changed no parameter": wrong(update=lambda self, minibatches, unlabeled=None: {"loss": 1.0}),
    r"predict\(\) must return shape \(12, 3\), returned \(12,\)": wrong(
        predict=lambda self, x: self.network(x).argmax(1)
    ),
    "changed the state": wrong(predict=moving_predict),
    "loaded from its state dict it goes on otherwise": updating(counts),
}


@pytest.mark.parametrize("message", ALGORITHMS)
def test_a_wrong_algorithm_is_told(message):
    if "dtype" in message:
        cls = ALGORITHMS[message]
        once = iter([cls.update])
        cls.update = lambda self, m, unlabeled=None: (next(once, lambda *_: {"loss": 1.0}))(self, m)
    with pytest.raises(AssertionError, match=message):
        check_algorithm(ALGORITHMS[message])
