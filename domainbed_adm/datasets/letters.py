"""Letters in the fonts that come with matplotlib, one family a domain: domains that are not digits, no download."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from string import ascii_uppercase
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from domainbed_adm.datasets.base import MultipleDomainDataset, TensorEnvironment, digest
from domainbed_adm.errors import UserError
from domainbed_adm.system.seeding import seed_hash

#: Font files of each domain, in the order of the card's environments; every image takes one of them.
FAMILIES = {
    "Sans": ("DejaVuSans", "DejaVuSans-Bold", "DejaVuSans-Oblique", "DejaVuSans-BoldOblique"),
    "Serif": ("DejaVuSerif", "DejaVuSerif-Bold", "DejaVuSerif-Italic", "DejaVuSerif-BoldItalic"),
    "Mono": ("DejaVuSansMono", "DejaVuSansMono-Bold", "DejaVuSansMono-Oblique", "DejaVuSansMono-BoldOblique"),
    "STIX": ("STIXGeneral", "STIXGeneralBol", "STIXGeneralItalic", "STIXGeneralBolIta"),
    "CM": ("cmr10", "cmb10", "cmss10", "cmtt10", "cmti10"),
}
#: Images of each letter in each domain.
PER_LETTER = 30
_SIDE, _SCALE = 28, 3
#: Ranges of the draws: height of a capital in px, degrees, px off the centre, blur's radius in px, noise's std.
_SIZE, _TURN, _SHIFT, _BLUR, _NOISE = (14, 24), (-25, 25), (-3, 3), (0, 1.2), (0, 0.3)


class Letters(MultipleDomainDataset):
    """The 26 letters, capital or small, white on black: turned, shifted, blurred and noisy; the same in every run.

    Inputs have shape (1, 28, 28), in [0, 1]; targets are places in the alphabet.
    """

    def __init__(self, data_dir: str | None, test_envs: Sequence[int], hparams: dict[str, Any]) -> None:
        fonts = fonts_folder()
        self.classes = list(ascii_uppercase)
        self.datasets = [drawn(fonts, name) for name in self.environments]


def fonts_folder() -> Path:
    """Where matplotlib keeps its fonts; it is not imported.

    Raises:
        UserError: it is not installed.
    """
    spec = find_spec("matplotlib")
    if spec is None or not spec.submodule_search_locations:
        raise UserError("Letters are drawn with matplotlib's fonts: pip install 'domainbed-adm[figures]'")
    return Path(next(iter(spec.submodule_search_locations))) / "mpl-data" / "fonts" / "ttf"


def drawn(fonts: Path, family: str) -> TensorEnvironment:
    """The domain of this family: ``PER_LETTER`` images of each letter, in the order of the alphabet.

    Raises:
        UserError: a font is not there.
    """
    files = [fonts / f"{name}.ttf" for name in FAMILIES[family]]
    random = np.random.RandomState(seed_hash("letters", family))
    targets = np.repeat(np.arange(len(ascii_uppercase)), PER_LETTER)
    try:
        pixels = np.stack([_image(files, ascii_uppercase[target], random) for target in targets])
        content = b"".join(hashlib.blake2b(file.read_bytes(), digest_size=8).digest() for file in files)
    except OSError as error:
        raise UserError(f"Letters: cannot read a font of matplotlib in {fonts}: {error}") from error
    environment = TensorEnvironment(torch.from_numpy(pixels)[:, None], targets)
    # of the fonts: what is drawn of them differs between versions of FreeType in its last bits
    environment.fingerprint = digest(environment.targets, content)
    return environment


@cache
def _font(file: Path, size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(str(file), size)


def _image(files: Sequence[Path], letter: str, random: np.random.RandomState) -> np.ndarray:
    """One image, float32 of shape (28, 28); every image takes as many numbers of ``random``."""
    file, small = files[random.randint(len(files))], random.randint(2)
    size, turn, blur, noise = (random.uniform(*span) for span in (_SIZE, _TURN, _BLUR, _NOISE))
    shift = random.uniform(*_SHIFT, size=2)
    speckles = random.standard_normal((_SIDE, _SIDE))
    font = _font(file, round(_SCALE * size / 0.73))  # a capital is 0.73 of the font's size
    large = Image.new("L", (_SCALE * _SIDE, _SCALE * _SIDE))
    x, y = (_SCALE * (_SIDE / 2 + offset) for offset in shift)
    ImageDraw.Draw(large).text((x, y), letter.lower() if small else letter, 255, font, anchor="mm")
    image = large.rotate(turn, Image.Resampling.BILINEAR).reduce(_SCALE).filter(ImageFilter.GaussianBlur(blur))
    levels = np.asarray(image, np.float32) / 255
    return np.clip(levels + noise * speckles, 0, 1).astype(np.float32)
