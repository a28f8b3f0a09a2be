"""Image files as grey or RGB of 8 bits, whatever mode the file is in; loads no torch.

The one way, for every mode that Pillow opens:

=======================  ===============================================================================
RGB, L, 1, P, CMYK, ...  Pillow's ``convert("RGB")``, which is DomainBed's; colour profiles are not read
transparency             over white, also a transparent colour of a palette or of a PNG
LAB                      to sRGB, by Pillow's colour management
I;16, and I up to 65535  the upper 8 of the 16 bits, as Pillow reads colour of 16 bits; no transparency
other I                  the image's least value becomes 0, its greatest 255
F within [0, 1]          times 255, rounded
F within [0, 255]        rounded
other F                  as other I
EXIF orientation         applied: the image stands upright; EXIF data that cannot be read count as none
several frames           the first
=======================  ===============================================================================

DomainBed differs: it leaves photographs turned as the camera held them, shows the colour that lies hidden below
transparent pixels, and clips 16 bits to 8, so that nearly all of such an image is white.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import ExifTags, Image, ImageCms, ImageOps, UnidentifiedImageError

from domainbed_adm.errors import UserError, one_line

#: PIL's mode of an image of so many channels.
_MODES = {1: "L", 3: "RGB"}
#: EXIF orientations that exchange width and height.
_TURNED = {5, 6, 7, 8}


def load_image(path: str | Path, channels: int = 3) -> Image.Image:
    """Decode one image file whole, as grey (1 channel) or RGB (3 channels), in the way this module states.

    DomainBed pads truncated files with grey; here they are an error.

    Raises:
        UserError: the file cannot be decoded or is too large for Pillow's limit of pixels (the message names it), or
            there is no image of so many channels.
    """
    try:
        with Image.open(path) as image:
            if image.format == "EPS":  # Pillow hands such a file to an outside program, Ghostscript
                raise UserError("EPS is a program, not an image: convert the file to PNG")
            image.load()
            return as_read(image, channels)
    except Exception as error:  # each of PIL's formats raises what its parser happens to raise
        raise UserError(f"cannot decode image {path}: {_reason(error)}") from error


def as_read(image: Image.Image, channels: int = 3) -> Image.Image:
    """A decoded image of any of Pillow's modes, upright, as grey (1 channel) or RGB (3 channels).

    Raises:
        UserError: there is no image of so many channels.
        ValueError: Pillow cannot convert it, or it holds values that are not finite.
    """
    if channels not in _MODES:
        raise UserError(f"images are read with 1 channel (grey) or 3 (colour), not {channels}")
    return to_rgb(_upright(image)).convert(_MODES[channels])


def short_side(path: str | Path) -> int:
    """Short side of an image file in px, from its header; 0 where that cannot be read, as decoding it will say."""
    try:
        with Image.open(path) as image:
            return int(min(image.size))
    except Exception:  # as above
        return 0


def upright_size(path: str | Path) -> tuple[int, int] | None:
    """Width and height of what :func:`load_image` gives, read without decoding; None where that cannot be told.

    It can of JPEG alone: other formats may say behind the pixels how an image was turned.
    """
    try:
        with Image.open(path) as image:
            if image.format not in {"JPEG", "MPO"}:
                return None
            width, height = image.size
            turned = image.getexif().get(ExifTags.Base.Orientation, 1) in _TURNED
    except Exception:  # as above
        return None
    return (height, width) if turned else (width, height)


def _upright(image: Image.Image) -> Image.Image:
    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # whatever Pillow's parser of EXIF data raises
        return image


def to_rgb(image: Image.Image) -> Image.Image:
    """An image of any of Pillow's modes as RGB, in the way this module states; ValueError where there is none."""
    if image.mode == "F" or image.mode.startswith("I"):
        return Image.fromarray(_eight_bits(np.asarray(image))).convert("RGB")
    if image.mode == "LAB":
        lab, srgb = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
        return ImageCms.buildTransform(lab, srgb, "LAB", "RGB").apply(image)
    if image.mode == "La":
        image = image.convert("LA")
    if image.mode in {"LA", "PA", "RGBA", "RGBa"} or "transparency" in image.info:
        below = Image.new("RGBA", image.size, "white")
        below.alpha_composite(image.convert("RGBA"))
        image = below
    return image.convert("RGB")


def _eight_bits(values: np.ndarray) -> np.ndarray:
    """Grey values of 16 bits, 32 bits or floats as 8 bits.

    Raises:
        ValueError: a value is not finite.
    """
    if not np.isfinite(values).all():
        raise ValueError("it holds values that are not finite")
    floats = values.dtype.kind == "f"
    low, high = (values.min(), values.max()) if values.size else (0, 0)
    if low >= 0 and high <= 65535 and not floats:
        return (values.astype(np.int64) >> 8).astype(np.uint8)
    exact = values.astype(np.float64)
    if floats and low >= 0 and high <= 255:
        return np.rint(exact * (255 if high <= 1 else 1)).astype(np.uint8)
    spread = float(high) - float(low)
    return np.rint((exact - low) * (255 / spread if spread else 0)).astype(np.uint8)


def _reason(error: Exception) -> str:
    """The error's words, without Pillow's mention of objects in memory, and without the name again."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return "no image of a format that Pillow knows" if isinstance(error, UnidentifiedImageError) else one_line(error)
