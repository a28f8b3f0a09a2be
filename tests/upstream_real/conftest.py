"""What the tests share that run in a real DomainBed checkout; DOMAINBED_DIR names it."""

import os
import warnings

import pytest
import torch

from domainbed_adm.cli import main
from tests.upstream.conftest import forget_host, own_process  # noqa: F401

CHECKOUT = os.environ.get("DOMAINBED_DIR")
#: DomainBed and what it imports warn on today's Python; that is not ours to fail on.
REAL = [
    pytest.mark.upstream,
    pytest.mark.skipif(not CHECKOUT, reason="set DOMAINBED_DIR to a DomainBed checkout"),
    pytest.mark.filterwarnings("ignore"),
]


@pytest.fixture
def host(own_process, monkeypatch):  # noqa: F811
    """DomainBed, registered; its datasets are read in this process, where it would start 8 for each loader."""
    from domainbed_adm import upstream

    monkeypatch.setenv(upstream.VARIABLE, CHECKOUT)
    found = upstream.register()
    monkeypatch.setattr(found.host.datasets.MultipleDomainDataset, "N_WORKERS", 0)
    return found


@pytest.fixture
def no_cuda_needed(monkeypatch):
    """DomainBed's test helper moves to the GPU; where there is none, that changes nothing."""
    if not torch.cuda.is_available():
        for cls in (torch.Tensor, torch.nn.Module):
            monkeypatch.setattr(cls, "cuda", lambda self, *args, **kwargs: self)


def tables(capsys, *command):
    """What a collector prints."""
    capsys.readouterr()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert main([*command]) == 0
    return capsys.readouterr().out
