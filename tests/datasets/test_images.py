"""Every mode of Pillow becomes RGB in the stated way; plain images are DomainBed's bit for bit; bad files are named."""

from __future__ import annotations

import io
import warnings
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import ExifTags, Image
from torchvision.datasets.folder import IMG_EXTENSIONS

from domainbed_adm.datasets.images import load_image, to_rgb
from domainbed_adm.datasets.layout import EXTENSIONS
from domainbed_adm.errors import UserError

COLORS = np.random.default_rng(0).integers(0, 256, (24, 32, 3), dtype=np.uint8)
ORIENTATION = ExifTags.Base.Orientation


def colors() -> Image.Image:
    return Image.fromarray(COLORS)


def pixels(image: Image.Image) -> np.ndarray:
    assert image.mode == "RGB"
    return np.asarray(image)


def test_the_extensions_are_torchvisions() -> None:
    assert EXTENSIONS == IMG_EXTENSIONS


@pytest.mark.parametrize(
    ("mode", "endings"),
    {
        "RGB": "jpg png bmp tif webp ppm",
        "L": "jpg png bmp tif webp ppm",
        "1": "jpg png bmp tif ppm",
        "P": "png bmp tif",
        "CMYK": "jpg tif",
        "YCbCr": "jpg tif",
    }.items(),
)
def test_opaque_modes_are_domainbeds_bit_for_bit(tmp_path: Path, mode: str, endings: str) -> None:
    for ending in endings.split():
        path = tmp_path / f"a.{ending}"
        colors().convert(mode).save(path)
        expected = Image.open(path).convert("RGB")
        assert np.array_equal(pixels(load_image(path)), np.asarray(expected)), ending
        grey = load_image(path, channels=1)
        assert grey.mode == "L"
        assert np.array_equal(np.asarray(grey), np.asarray(expected.convert("L"))), ending


def test_grey_stays_grey_bit_for_bit(tmp_path: Path) -> None:
    grey = Image.fromarray(np.arange(256, dtype=np.uint8).reshape(16, 16))
    grey.save(tmp_path / "a.png")
    assert np.array_equal(np.asarray(load_image(tmp_path / "a.png", channels=1)), np.asarray(grey))


@pytest.mark.parametrize("mode", ["RGBA", "LA", "PA", "RGBa", "La"])
def test_transparency_lies_over_white(mode: str) -> None:
    base = colors() if mode.startswith(("R", "P")) else colors().convert("L")
    alpha = np.zeros((24, 32), dtype=np.uint8)
    alpha[:, 10:20], alpha[:, 20:] = 128, 255
    image = base.convert("P" if mode == "PA" else base.mode)
    opaque = np.asarray(image.convert("RGB")).astype(float)
    image = image.convert("PA" if mode == "PA" else "RGBA" if mode.startswith("R") else "LA")
    image.putalpha(Image.fromarray(alpha))
    if mode.endswith("a"):
        image = image.convert(mode)
    assert image.mode == mode
    result = pixels(to_rgb(image))
    assert (result[:, :10] == 255).all()
    assert np.abs(result[:, 10:20] - (opaque[:, 10:20] * 128 + 255 * 127) / 255).max() <= 2
    assert np.array_equal(result[:, 20:], opaque[:, 20:])


@pytest.mark.parametrize("mode", ["P", "L", "RGB"])
def test_a_transparent_colour_of_a_png_becomes_white(tmp_path: Path, mode: str) -> None:
    values = np.full((8, 8), 7, dtype=np.uint8)
    values[4:] = 90
    image = Image.fromarray(values).convert("RGB")
    image = image.quantize(2) if mode == "P" else image.convert(mode)
    first = image.getpixel((0, 0))
    image.save(tmp_path / "a.png", transparency=first)
    result = pixels(load_image(tmp_path / "a.png"))
    assert (result[:4] == 255).all()
    assert (np.abs(result[4:].astype(int) - 90) <= 2).all()


def test_sixteen_bits_keep_their_upper_eight(tmp_path: Path) -> None:
    values = np.arange(0, 65536, 16, dtype=np.uint16).reshape(64, 64)
    for name in ("a.png", "a.tif"):
        Image.fromarray(values).save(tmp_path / name)
        assert np.array_equal(pixels(load_image(tmp_path / name))[..., 0], values >> 8)
    (tmp_path / "a.pgm").write_bytes(b"P5 64 64 65535\n" + values.astype(">u2").tobytes())
    assert np.array_equal(pixels(load_image(tmp_path / "a.pgm"))[..., 2], values >> 8)


@pytest.mark.parametrize("mode", ["I;16", "I;16B", "I;16L", "I;16N"])
def test_sixteen_bits_in_either_byte_order(mode: str) -> None:
    image = Image.new(mode, (2, 1), 0x1234)
    assert pixels(to_rgb(image)).tolist() == [[[0x12] * 3] * 2]


def test_thirty_two_bits_and_floats_are_scaled_not_clipped(tmp_path: Path) -> None:
    cases = {
        "wide": (np.array([[-100000, 0, 100000]], dtype=np.int32), [0, 128, 255]),
        "one value": (np.array([[70000, 70000]], dtype=np.int32), [0, 0]),
        "unit": (np.array([[0, 0.5, 1]], dtype=np.float32), [0, 128, 255]),
        "bytes": (np.array([[0, 7.4, 254.6]], dtype=np.float32), [0, 7, 255]),
        "other": (np.array([[-1, 0, 3]], dtype=np.float32), [0, 64, 255]),
        "huge": (np.array([[-3e38, 0, 3e38]], dtype=np.float32), [0, 128, 255]),
    }
    for name, (values, expected) in cases.items():
        Image.fromarray(values).save(tmp_path / "a.tif")
        assert pixels(load_image(tmp_path / "a.tif"))[0, :, 1].tolist() == expected, name


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_float_image_that_is_not_finite_is_named(tmp_path: Path, value: float) -> None:
    Image.fromarray(np.array([[0, value]], dtype=np.float32)).save(tmp_path / "a.tif")
    with pytest.raises(UserError, match=r"cannot decode image .*a\.tif: it holds values that are not finite"):
        load_image(tmp_path / "a.tif")


def test_lab_and_hsv_become_their_colours(tmp_path: Path) -> None:
    lab = Image.new("LAB", (3, 1))
    for x, color in enumerate([(0, 128, 128), (255, 128, 128), (138, 209, 198)]):
        lab.putpixel((x, 0), color)
    lab.save(tmp_path / "a.tif")
    expected = np.array([[0, 0, 0], [255, 255, 255], [255, 0, 0]])
    assert np.abs(pixels(load_image(tmp_path / "a.tif"))[0] - expected).max() <= 8
    assert pixels(to_rgb(Image.new("HSV", (1, 1), (0, 255, 255)))).tolist() == [[[255, 0, 0]]]


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("ending", ["png", "jpg", "tif", "webp"])
def test_the_exif_orientation_is_applied(tmp_path: Path, orientation: int, ending: str) -> None:
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    upright = np.zeros((16, 32, 3), dtype=np.uint8)
    upright[:8, :8] = 255
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.transpose(1, 0, 2),
        6: np.rot90(upright, 1),
        7: upright[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90(upright, -1),
    }
    path = tmp_path / f"a.{ending}"
    Image.fromarray(np.ascontiguousarray(stored[orientation])).save(path, exif=exif)
    result = pixels(load_image(path))
    assert result.shape == upright.shape
    assert ((result > 127) == (upright > 127)).all()


def test_exif_data_that_cannot_be_read_count_as_none(tmp_path: Path) -> None:
    colors().save(tmp_path / "a.png", exif=b"Exif\0\0no TIFF header at all")
    assert np.array_equal(pixels(load_image(tmp_path / "a.png")), COLORS)


def test_the_first_of_several_frames_counts(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (4, 4), color) for color in ("red", "blue")]
    frames[0].save(tmp_path / "a.webp", save_all=True, append_images=frames[1:], lossless=True)
    assert pixels(load_image(tmp_path / "a.webp"))[0, 0].tolist() == [255, 0, 0]


def test_too_many_pixels_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    colors().save(tmp_path / "a.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 300)
    with pytest.raises(UserError, match=r"cannot decode image .*a\.png: Image size \(768 pixels\) exceeds limit"):
        load_image(tmp_path / "a.png")


def test_a_file_that_is_a_program_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\nshowpage\n%%EOF\n")
    with pytest.raises(UserError, match="EPS is a program, not an image: convert the file to PNG"):
        load_image(path)


def test_no_image_and_no_file_are_named(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"no image")
    with pytest.raises(UserError, match=r"a\.png: no image of a format that Pillow knows"):
        load_image(tmp_path / "a.png")
    with pytest.raises(UserError, match=r"b\.png: .*No such file"):
        load_image(tmp_path / "b.png")


def _files() -> list[bytes]:
    files = []
    for kind, mode in [
        ("PNG", "RGBA"),
        ("PNG", "P"),
        ("PNG", "I;16"),
        ("JPEG", "RGB"),
        ("JPEG", "CMYK"),
        ("TIFF", "F"),
        ("TIFF", "LAB"),
        ("BMP", "RGB"),
        ("GIF", "P"),
        ("WEBP", "RGBA"),
        ("PPM", "RGB"),
        ("ICO", "RGBA"),
        ("TGA", "RGB"),
        ("PCX", "L"),
    ]:
        image = Image.new("LAB", (8, 8)) if mode == "LAB" else colors().convert("L").convert(mode)
        image = image if mode == "LAB" or not mode.startswith(("R", "C")) else colors().convert(mode)
        buffer = io.BytesIO()
        image.save(buffer, kind)
        files.append(buffer.getvalue())
    return files


FILES = _files()


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    data = bytearray(draw(st.sampled_from(FILES)))
    for _ in range(draw(st.integers(0, 8))):
        data[draw(st.integers(0, min(len(data) - 1, 400)))] = draw(st.integers(0, 255))
    return bytes(data[: draw(st.integers(0, len(data)))]) if draw(st.booleans()) else bytes(data)


@settings(
    max_examples=300, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.one_of(damaged(), st.binary(max_size=64)))
def test_fuzz_image_bytes(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(data)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow warns of what it mends: EXIF data, TIFF tags
        message = ""
        try:
            assert load_image(path).mode == "RGB"
        except UserError as error:
            message = str(error)
    assert not message or (str(path) in message and "\n" not in message)
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.png"]
