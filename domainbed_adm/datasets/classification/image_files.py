"""Fine-grained sets: image files of an official split, read as a folder dataset's are."""

from __future__ import annotations

from pathlib import Path

from domainbed_adm.datasets.classification.fine_grained import list_images
from domainbed_adm.datasets.folders import FolderDataset
from domainbed_adm.datasets.layout import Inventory


class FineGrained(FolderDataset):
    """Stanford Cars, FGVC Aircraft, CUB-200-2011 or Food-101: image files of an official split.

    Of the hparam ``image_crop`` the default is "short_side". In a DomainBed checkout, whose hparams have none, images
    are resized as DomainBed does, unless ``--hparams`` gives it.

    Raises:
        UserError: a file that lists images is not there, or not as the set's authors made it.
    """

    def list_images(self, root: Path) -> Inventory:
        """The images of "train" and "test" by class."""
        return list_images(self.card.name, root)
