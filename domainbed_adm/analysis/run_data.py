"""The model of a run, checked to be that run's, and datasets as evaluation sees them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from domainbed_adm.datasets import get_card, get_dataset_class
from domainbed_adm.datasets.base import MultipleDomainDataset
from domainbed_adm.errors import UserError
from domainbed_adm.recorded_run import IDENTITY, Run
from domainbed_adm.run_files import MODEL
from domainbed_adm.system.console import printable_values
from domainbed_adm.training.model_file import read_model

#: Hparams that decide what the images of our datasets are, beside augmentation, which no analysis sees.
_READ = ("image_size", "image_channels", "image_crop", "resize_to")


def load_run_model(run: Run, checkpoint: str = MODEL) -> dict[str, Any]:
    """What :func:`read_model` reads of this file of the run; tensors stay on the disk until they are used.

    Raises:
        UserError: it is not there, damaged, or another run's.
    """
    contents = read_model(run.folder / checkpoint, mapped=True)
    own = printable_values(contents["args"])  # as records have them
    unlike = [name for name in IDENTITY if own.get(name) != run.args.get(name)]
    if unlike:
        told = [f"{name} {own.get(name)} in the model, {run.args.get(name)} in the records" for name in unlike]
        raise UserError(
            f"{contents['path']} is another run's: {'; '.join(told)}. Put this run's model back, or --restart it"
        )
    return contents


class RunDatasets:
    """The datasets of runs, in ``data_dir`` or else where they were in training; each is built once."""

    def __init__(self, data_dir: str | None) -> None:
        self.data_dir = data_dir
        self.built: dict[str, MultipleDomainDataset] = {}

    def get(self, args: Mapping[str, Any], hparams: dict[str, Any], name: str | None = None) -> MultipleDomainDataset:
        """The dataset of the run with these arguments, or the one that is named, with images of the run's size.

        Only an extension's may depend on more than that.
        """
        name = name or args["dataset"]
        place = self.data_dir if self.data_dir is not None else args.get("data_dir")
        test_envs = list(args["test_envs"] if name == args["dataset"] else get_card(name).test_envs or ())
        is_ours = get_card(name).path.startswith("domainbed_adm.")
        read = [hparams.get(hparam) for hparam in _READ] if is_ours else (test_envs, hparams)
        key = repr((name, place, read))
        if key not in self.built:
            self.built[key] = get_dataset_class(name)(place, test_envs, hparams)
        return self.built[key]
