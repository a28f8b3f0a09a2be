"""``export``: a run's network for programs without this package, by ``torch.export``, ONNX or safetensors.

==============  =======================================  ==================================================
format          what it is                               how to read it
==============  =======================================  ==================================================
torch_export    network, any batch size                  ``torch.export.load(file).module()(inputs)``
onnx            network, any batch size; ``inputs`` to   ``onnxruntime.InferenceSession(file)``
                ``logits``
safetensors     weights alone, each tensor once, named   ``load_state_dict(load_file(file), strict=False)``
                as in ``load_model(run).algorithm``
==============  =======================================  ==================================================

Each file says, as JSON, under the name ``domainbed_adm`` (an extra file ``domainbed_adm.json`` of ``torch_export``,
metadata of the others) what it needs to be used: ``classes``, in the order of the logits, ``input_shape``,
``preprocessing`` and the run's ``args``. Inputs are what
``load_model(run).transform`` makes: RGB or grey, resized with a bilinear filter, scaled to [0, 1], less ``mean``, over
``std`` by channel.
"""

from __future__ import annotations

import importlib
import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import torch

import domainbed_adm
from domainbed_adm.errors import UserError, lookup, one_line
from domainbed_adm.recorded_run import Run
from domainbed_adm.system.disk import replacing
from domainbed_adm.trained_network import TrainedNetwork, load_model

_NAME = "domainbed_adm"


def export(run: str | Path | Run | TrainedNetwork, format: str, out: str | Path) -> Path:
    """Write a run's network to a file, whole or not at all, and return its path.

    Args:
        run: what :func:`~domainbed_adm.load_model` takes, or what it has given.
        format: "torch_export", "onnx" or "safetensors".
        out: the file; one that is there is replaced.

    Raises:
        UserError: the format is unknown, a library is missing, there is no such model, or its network, one of
            DomainBed's, cannot be traced.
    """
    write = lookup(_FORMATS, format, "format")
    for library in _NEEDS[format]:
        _imported(library, format)
    network = run if isinstance(run, TrainedNetwork) else load_model(run, device="cpu")
    with replacing(Path(out)) as file, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch's exporters, on themselves
        write(network.eval(), file)
    return Path(out)


def about(network: TrainedNetwork) -> dict[str, Any]:
    """What an exported file says of the network, of JSON's types."""
    transform = network.transform
    normalization, resize = transform.normalization, transform.resize
    size = network.input_shape[1]
    return {
        "version": domainbed_adm.__version__,
        "classes": network.classes,
        "input_shape": list(network.input_shape),
        "preprocessing": {
            "mode": {1: "L", 3: "RGB"}.get(network.input_shape[0]),
            "resize": {"side": resize.side, "square": resize.square} if resize else {"side": size, "square": True},
            "center_crop": size if resize else None,
            "mean": list(normalization.mean) if normalization else None,
            "std": list(normalization.std) if normalization else None,
        },
        "args": network.args,
    }


def _traced(network: TrainedNetwork) -> torch.export.ExportedProgram:
    device = next(network.parameters()).device
    example = torch.zeros(2, *network.input_shape, device=device)
    try:
        with torch.no_grad():
            return torch.export.export(network, (example,), dynamic_shapes={"x": {0: torch.export.Dim("batch")}})
    except Exception as error:  # of many types, as the code that is traced may do anything
        raise UserError(f"{type(network.algorithm).__name__} cannot be exported: {one_line(error)}") from error


def _write_torch_export(network: TrainedNetwork, file: BinaryIO) -> None:
    extra = {f"{_NAME}.json": json.dumps(about(network))}
    torch.export.save(_traced(network), file, extra_files=extra)


def _write_onnx(network: TrainedNetwork, file: BinaryIO) -> None:
    if not _newer_than_2_5():
        raise UserError(f"format onnx needs torch 2.6 or newer, this is {torch.__version__}")
    program = torch.onnx.export(
        _traced(network), (), input_names=["inputs"], output_names=["logits"], dynamo=True, verbose=False
    )
    assert program is not None
    model = program.model_proto
    entry = model.metadata_props.add()
    entry.key, entry.value = _NAME, json.dumps(about(network))
    file.write(model.SerializeToString())


def _newer_than_2_5() -> bool:
    """Before, torch's exporter did not take a program that is traced already."""
    return tuple(map(int, torch.__version__.split(".")[:2])) >= (2, 6)


def _write_safetensors(network: TrainedNetwork, file: BinaryIO) -> None:
    from safetensors.torch import save

    algorithm = network.algorithm
    tensors = dict(algorithm.named_parameters()) | dict(algorithm.named_buffers())  # shared ones once
    kept = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    file.write(save(kept, metadata={_NAME: json.dumps(about(network))}))


def _imported(library: str, format: str) -> None:
    try:
        importlib.import_module(library)
    except ImportError as error:
        raise UserError(f"format {format} needs {library}: pip install 'domainbed-adm[export]'") from error


_FORMATS: dict[str, Callable[[TrainedNetwork, BinaryIO], None]] = {
    "torch_export": _write_torch_export,
    "onnx": _write_onnx,
    "safetensors": _write_safetensors,
}
_NEEDS: dict[str, tuple[str, ...]] = {
    "torch_export": (),
    "onnx": ("onnx", "onnxscript"),
    "safetensors": ("safetensors",),
}
