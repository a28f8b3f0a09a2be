"""``export``: each file computes what the model does, for any batch size, and says what its inputs and outputs are."""

from __future__ import annotations

import json

import pytest
import torch

from domainbed_adm import UserError, export, load_model, train
from domainbed_adm.cli import main


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("exported") / "run"
    train(dataset="Debug28", algorithm="SAM", steps=2, hparams={"cnn_width": 8, "batch_size": 4}, output_dir=path)
    return path


@pytest.fixture(scope="module")
def network(folder):
    return load_model(folder, "cpu")


def check_about(text, network):
    about = json.loads(text)
    assert about["classes"] == network.classes
    assert about["input_shape"] == list(network.input_shape)
    assert about["preprocessing"] == {
        "mode": "RGB",
        "resize": {"side": 28, "square": True},
        "center_crop": None,
        "mean": None,
        "std": None,
    }
    assert about["args"]["algorithm"] == "SAM"


@pytest.mark.skipif(tuple(map(int, torch.__version__.split(".")[:2])) < (2, 6), reason="needs torch 2.6")
def test_onnx_computes_the_same(folder, network, tmp_path):
    runtime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    path = tmp_path / "model.onnx"
    assert main(["export", str(folder), "--format", "onnx", "--out", str(path)]) == 0
    session = runtime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    for size in (1, 5):
        x = torch.rand(size, *network.input_shape)
        logits = session.run(["logits"], {"inputs": x.numpy()})[0]
        assert torch.allclose(torch.from_numpy(logits), network(x), atol=1e-5)
    check_about(session.get_modelmeta().custom_metadata_map["domainbed_adm"], network)


def test_torch_export_computes_the_same(folder, network, tmp_path):
    path = export(folder, "torch_export", tmp_path / "model.pt2")
    extra = {"domainbed_adm.json": ""}
    module = torch.export.load(path, extra_files=extra).module()
    for size in (1, 5):
        x = torch.rand(size, *network.input_shape)
        assert torch.allclose(module(x), network(x), atol=1e-6)
    check_about(extra["domainbed_adm.json"], network)


def test_safetensors_hold_the_weights(folder, network, tmp_path):
    safetensors = pytest.importorskip("safetensors")
    from safetensors.torch import load_file

    path = export(network, "safetensors", tmp_path / "model.safetensors")
    other = load_model(folder, "cpu")
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.zero_()
    assert not other.algorithm.load_state_dict(load_file(path), strict=False).unexpected_keys
    x = torch.rand(3, *network.input_shape)
    assert torch.equal(other(x), network(x))
    with safetensors.safe_open(path, "pt") as file:
        check_about(file.metadata()["domainbed_adm"], network)


def test_what_cannot_be_exported_is_one_line(folder, tmp_path, monkeypatch):
    with pytest.raises(UserError, match="unknown format 'onx'. Did you mean onnx?"):
        export(folder, "onx", tmp_path / "a")
    with pytest.raises(UserError, match="no file"):
        export(tmp_path, "torch_export", tmp_path / "a")
    monkeypatch.setitem(__import__("sys").modules, "safetensors", None)
    with pytest.raises(UserError, match=r"needs safetensors: pip install 'domainbed-adm\[export\]'"):
        export(folder, "safetensors", tmp_path / "a")
    assert not list(tmp_path.iterdir())
