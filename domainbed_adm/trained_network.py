"""``load_model``: the network of a finished run, to classify and embed images, seen as in the run's evaluation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import torch
from PIL import Image
from torch import Tensor, nn
from torchvision import transforms

from domainbed_adm.analysis.run_data import load_run_model
from domainbed_adm.datasets.base import to_inputs
from domainbed_adm.datasets.cards import Normalization
from domainbed_adm.datasets.images import as_read, load_image
from domainbed_adm.datasets.layout import expanded
from domainbed_adm.datasets.transforms import Resize, eval_transform, first_resize
from domainbed_adm.errors import NonFiniteError, UserError, one_line
from domainbed_adm.recorded_run import Run
from domainbed_adm.registry import load_checkout, load_extensions
from domainbed_adm.run_files import MODEL
from domainbed_adm.training.devices import named_device
from domainbed_adm.training.model_file import read_model, restore_algorithm

#: Images that pass at a time.
BATCH = 64
#: What a network classifies: image files, decoded images, or inputs of shape (n, channels, height, width).
Images = Sequence[str | Path | Image.Image] | Tensor


class Predictions(NamedTuple):
    """What a network says of n images.

    Attributes:
        classes: the name of each one's most probable class.
        probabilities: float32[n, classes] on the CPU, in the order of the network's ``classes``; rows sum to 1.
    """

    classes: list[str]
    probabilities: Tensor


@dataclass(frozen=True)
class InputTransform:
    """From an image to what a network reads, as evaluation in training did; fits ``torchvision.datasets`` too.

    Attributes:
        input_shape: channels, height and width.
        normalization: what is taken from pixels in [0, 1] after resizing, by channel; None for nothing.
        resize: done before the middle is cut out; None: the whole image is resized to a square.
    """

    input_shape: tuple[int, int, int]
    normalization: Normalization | None
    resize: Resize | None

    def __call__(self, image: str | Path | Image.Image) -> Tensor:
        """An image file, or an image of any of Pillow's modes, as float32 of ``input_shape``.

        Raises:
            UserError: it cannot be decoded, or the network reads no images: inputs of other than 1 or 3 channels.
        """
        channels = self.input_shape[0]
        pixels = self._to_pixels  # first: what the network reads matters more than the file
        if not isinstance(image, Image.Image):
            return to_inputs(pixels(load_image(image, channels)), self.normalization)
        try:
            return to_inputs(pixels(as_read(image, channels)), self.normalization)
        except (ValueError, OSError) as error:
            raise UserError(f"cannot read this image: {one_line(error)}") from error

    @cached_property
    def _to_pixels(self) -> transforms.Compose:
        channels, size, width = self.input_shape
        if channels not in (1, 3):
            raise UserError(f"the model was trained on inputs of {channels} channels; an image file has 1 or 3")
        if size != width:
            raise UserError(
                f"the model was trained on inputs of {size} x {width} pixels; images are resized to a square"
            )
        return eval_transform(size, channels, self.resize)


class TrainedNetwork(nn.Module):
    """The network of a run, in evaluation mode. Called, it maps inputs [n, *input_shape] to logits [n, classes].

    Attributes:
        algorithm: the trained ``Algorithm``.
        classes: names of the classes, in the order of the logits; "0", "1", ... where the file does not say.
        transform: makes an input of an image.
        args: the flags of the run; ``hparams``: its hyperparameters.
        input_shape: channels, height and width of an input.
    """

    def __init__(self, contents: dict[str, Any]) -> None:
        super().__init__()
        self.algorithm: Any = restore_algorithm(contents)
        self.args: dict[str, Any] = contents["args"]
        self.hparams: dict[str, Any] = contents["model_hparams"]
        self.classes: list[str] = list(contents["classes"] or map(str, range(contents["model_num_classes"])))
        channels, height, width = contents["model_input_shape"]
        self.input_shape = (int(channels), int(height), int(width))
        means = contents["normalization"]
        normalization = Normalization(*map(tuple, means)) if means else None
        resize = first_resize(self.hparams | {"image_size": self.input_shape[1]})
        self.transform = InputTransform(self.input_shape, normalization, resize)
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        """Logits of inputs, as ``transform`` makes them."""
        logits: Tensor = self.algorithm.predict(x)
        return logits

    def predict(self, images: Images, batch_size: int = BATCH) -> Predictions:
        """Classify images; so many are decoded and pass at a time.

        Raises:
            UserError: an image cannot be decoded, or a tensor has another shape.
            NonFiniteError: an output is not finite.
        """
        probabilities = self._over(images, batch_size, self).softmax(1)
        return Predictions([self.classes[i] for i in probabilities.argmax(1).tolist()], probabilities)

    def embed(self, images: Images, batch_size: int = BATCH) -> Tensor:
        """What the featurizer gives for images, before the classifier: float32[n, features] on the CPU.

        Raises:
            UserError: as :meth:`predict`, or the algorithm, one of DomainBed's, has no featurizer.
            NonFiniteError: an output is not finite.
        """
        featurizer = getattr(self.algorithm, "featurizer", None)
        if featurizer is None:
            raise UserError(f"{type(self.algorithm).__name__} has no featurizer to embed images with")
        return self._over(images, batch_size, featurizer)

    @torch.no_grad()
    def _over(self, images: Images, batch_size: int, function: Callable[[Tensor], Tensor]) -> Tensor:
        self.eval()
        if isinstance(images, str | Path | Image.Image):
            raise UserError("give a list of images, or a tensor of shape (n, channels, height, width), not one image")
        if isinstance(images, Tensor) and images.shape[1:] != self.input_shape:
            raise UserError(f"inputs must have the shape (n, *{self.input_shape}), not {tuple(images.shape)}")
        if not len(images):
            raise UserError("no images were given")
        device, outputs = next(self.parameters()).device, []
        for start in range(0, len(images), batch_size):
            part = images[start : start + batch_size]
            x = part if isinstance(part, Tensor) else torch.stack([self.transform(image) for image in part])
            output = function(x.to(device)).float().cpu()
            if not output.isfinite().all():
                named = part[0] if isinstance(part, Sequence) and isinstance(part[0], str | Path) else f"image {start}"
                raise NonFiniteError(f"not finite: the model's output for {named} or an image after it")
            outputs.append(output)
        return torch.cat(outputs)


def load_model(run: str | Path | Run, device: str | None = None, domainbed: str | None = None) -> TrainedNetwork:
    """The network of a finished run, executing nothing from its file.

    Args:
        run: folder of a run, a run of :func:`~domainbed_adm.load_runs`, or a file: ``model.pkl``,
            ``model_step300.pkl``, or a model that DomainBed's own train script saved.
        device: "cpu", "cuda" or "cuda:1"; None: a GPU where there is one.
        domainbed: folder of a DomainBed checkout, where the algorithm is its own.

    >>> from tempfile import mkdtemp
    >>> from domainbed_adm import load_model, train
    >>> from PIL import Image
    >>> folder = mkdtemp()
    >>> _ = train(dataset="Debug28", steps=1, hparams={"cnn_width": 8}, output_dir=folder)  # doctest: +ELLIPSIS
    device: ...
    >>> network = load_model(folder, device="cpu")
    >>> classes, probabilities = network.predict([Image.new("RGB", (60, 40), "red")])
    >>> probabilities.shape, classes[0] in network.classes
    (torch.Size([1, 2]), True)

    Raises:
        UserError: the file is not there, damaged or another run's, its algorithm is not known, or there is no such
            device.
    """
    load_extensions()
    if domainbed:
        load_checkout(domainbed)
    where = named_device(device)
    if isinstance(run, Run):
        contents = load_run_model(run)
    else:
        path = expanded(run)
        contents = read_model(path / MODEL if path.is_dir() else path)
    return TrainedNetwork(contents).to(where)
