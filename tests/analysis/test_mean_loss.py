import pytest
import torch
import torch.nn.functional as F
from torch import nn

from benchmarks.memory import PeakMemory
from domainbed_adm.analysis.mean_loss import MeanLoss, exact_arithmetic
from domainbed_adm.errors import NonFiniteError
from domainbed_adm.method.side_effects import as_trained
from tests.reference import hessian as reference
from tests.toys import batch, buffers_of, network, parameters_of, seeded


def split(x, y, size):
    return list(zip(x.split(size), y.split(size), strict=True))


def loss_of(model, batches):
    return MeanLoss(model, list(model.parameters()), batches, sum(len(y) for _, y in batches))


def flat(tensors):
    return torch.cat([tensor.flatten() for tensor in tensors])


@pytest.mark.parametrize("size", [12, 5])
def test_value_accuracy_and_gradient_are_those_of_the_whole_sample(size):
    model, (x, y) = network(), batch(12)
    loss = loss_of(model, split(x, y, size))
    logits = model(x)
    whole = F.cross_entropy(logits, y)
    assert loss.value() == pytest.approx(whole.item(), rel=1e-12)
    assert loss.value_and_accuracy()[1] == (logits.argmax(1) == y).double().mean()
    expected = torch.autograd.grad(whole, list(model.parameters()))
    torch.testing.assert_close(flat(loss.gradient()), flat(expected), rtol=1e-10, atol=0)


@pytest.mark.parametrize("batch_norm", [False, True])
def test_the_hessian_product_is_that_of_the_dense_matrix(batch_norm):
    """With BatchNorm the loss is that of these mini-batches, each normalised by itself."""
    model, batches = network(batch_norm=batch_norm), split(*batch(12), 5)
    vector = [torch.randn(p.shape, generator=seeded(1), dtype=p.dtype) for p in model.parameters()]
    before, buffers = parameters_of(model), buffers_of(model)
    with as_trained(model):
        dense = reference.dense_hessian(model, batches)
        product = loss_of(model, batches).hessian_product(vector)
    torch.testing.assert_close(flat(product), dense @ flat(vector), rtol=1e-9, atol=1e-12)
    assert torch.equal(parameters_of(model), before)
    assert all(torch.equal(value, buffers[name]) for name, value in buffers_of(model).items())
    assert all(param.grad is None for param in model.parameters())


def test_a_parameter_that_the_loss_does_not_read_has_no_curvature():
    model, batches = network(), split(*batch(12), 5)
    unread = torch.ones(2, dtype=torch.float64, requires_grad=True)
    loss = MeanLoss(model, [unread, *model.parameters()], batches, 12)
    ones = [torch.ones_like(param) for param in loss.params]
    assert loss.gradient()[0].tolist() == loss.hessian_product(ones)[0].tolist() == [0, 0]


def test_attention_can_be_derived_twice():
    """The fast kernels of attention have no second derivative."""

    class Attention(nn.Module):
        def __init__(self):
            super().__init__()
            self.mix = nn.Linear(4, 12)

        def forward(self, x):
            q, k, v = self.mix(x.flatten(2)).chunk(3, -1)
            return F.scaled_dot_product_attention(q[:, None], k[:, None], v[:, None]).mean((1, 2))

    torch.manual_seed(0)
    model, batches = Attention(), split(*batch(6, channels=3, size=2, dtype=torch.float32), 3)
    with exact_arithmetic():
        product = loss_of(model, batches).hessian_product([torch.ones_like(p) for p in model.parameters()])
    assert flat(product).abs().sum() > 0


@pytest.mark.parametrize("what", ["gradient", "Hessian"])
def test_what_is_not_finite_is_told(what):
    model, (x, y) = network(), batch(6)
    x[0] = torch.nan
    loss = loss_of(model, split(x, y, 3))
    ones = [torch.ones_like(param) for param in model.parameters()]
    with pytest.raises(NonFiniteError, match=f"the {what} of the loss is not finite"):
        loss.gradient() if what == "gradient" else loss.hessian_product(ones)


def test_memory_is_that_of_one_mini_batch():
    peaks = []
    model = network()
    vector = [torch.ones_like(param) for param in model.parameters()]
    for count in (1, 2, 20):
        loss = loss_of(model, split(*batch(64 * count), 64))
        with PeakMemory() as memory:
            loss.value()
            loss.gradient()
            loss.hessian_product(vector)
        peaks.append(memory.peak)
    assert peaks[2] == peaks[1] <= 1.05 * peaks[0]
