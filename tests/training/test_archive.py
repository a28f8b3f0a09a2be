"""A stranger's file takes no more memory than it has bytes; what state dicts hold is loaded."""

import pickle
import zipfile

import pytest
import torch

from domainbed_adm.errors import UserError
from domainbed_adm.training import model_file as checkpoint
from domainbed_adm.training.archive import check_archive
from domainbed_adm.training.model_file import load_plain


class Call:
    def __init__(self, function, *args):
        self.call = function, args

    def __reduce__(self):
        return self.call


@pytest.fixture
def saved(tmp_path):
    path = tmp_path / "base.pkl"
    torch.save({"args": 1, "weights": torch.ones(100)}, path)
    return path


def rewritten(source, path, pickled=None, compressed=""):
    """A copy with another pickle, or with the members compressed whose names end so."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(path, "w") as new:
        for name in old.namelist():
            how = zipfile.ZIP_DEFLATED if compressed and name.endswith(compressed) else zipfile.ZIP_STORED
            new.writestr(name, pickled if pickled and name.endswith("data.pkl") else old.read(name), how)
    return path


def legacy(source, path):
    torch.save(torch.load(source, weights_only=True), path, _use_new_zipfile_serialization=False)
    return path


def after_a_pickle(source, path):
    """``zipfile`` finds the zip at its end; ``torch.load`` would read the pickle before it."""
    path.write_bytes(pickle.dumps({"args": 1}, 2) + source.read_bytes())
    return path


def overlapping(source, path):
    """Many names of the same bytes."""
    rewritten(source, path)
    with zipfile.ZipFile(path, "a") as archive:
        one = next(member for member in archive.infolist() if member.filename.endswith("data/0"))
        archive.filelist += [one] * 20
        archive.comment = b"so that the directory is written anew"
    return path


def calling(function, *args):
    return lambda source, path: rewritten(source, path, pickle.dumps({"args": Call(function, *args)}, 2))


@pytest.mark.parametrize(
    ("make", "fault"),
    [
        (calling(bytearray, 10), "it names __builtin__ bytearray"),
        (calling(torch.Tensor, 10), "it names torch Tensor"),
        (calling(torch.UntypedStorage, 10), "it names torch.storage UntypedStorage"),
        (lambda source, path: rewritten(source, path, compressed="data/0"), "it is compressed"),
        (lambda source, path: rewritten(source, path, compressed="data.pkl"), "it is compressed"),
        (after_a_pickle, "it does not begin as a zip"),
        (overlapping, "its members are larger than it is"),
        (legacy, None),
    ],
    ids=["bytearray", "Tensor", "storage", "deflated", "deflated pickle", "prefixed", "overlapping", "legacy"],
)
def test_what_takes_more_memory_than_its_size_is_refused_unloaded(tmp_path, saved, monkeypatch, make, fault):
    path = make(saved, tmp_path / "model.pkl")
    if fault:
        with pytest.raises(UserError, match=fault):
            check_archive(path)
    monkeypatch.setattr(torch, "load", lambda *_, **__: pytest.fail("it was loaded"))
    with pytest.raises(UserError, match=r"model.pkl is no file that domainbed-adm saved: it is damaged, or holds more"):
        load_plain(path, ["args"])


def test_tensors_of_every_common_kind_are_loaded(tmp_path):
    kinds = [torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.complex64, torch.complex128]
    kinds += [torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64]
    network = torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.BatchNorm1d(3))
    contents = {"tensors": [torch.ones(2, dtype=kind) for kind in kinds], "network": network.state_dict()}
    contents |= {"parameter": torch.nn.Parameter(torch.ones(2)), "shape": torch.Size((3, 28, 28)), "plain": (1, None)}
    checkpoint.save_model(tmp_path / "model.pkl", contents)
    loaded = load_plain(tmp_path / "model.pkl", ["tensors"])
    assert [tensor.dtype for tensor in loaded["tensors"]] == kinds
    assert loaded["network"].keys() == network.state_dict().keys()
    assert (loaded["shape"], loaded["plain"]) == ((3, 28, 28), (1, None))
