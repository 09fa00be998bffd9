#!/usr/bin/env python3
"""Write the reference outputs that eqco-data's transforms are tested against.

Every transform of torchvision, with fixed parameters, on two small pictures: `photo` (smooth
shades, edges, saturated colours) and `noise` (every byte random). Pictures are Pillow images, as in
an ordinary training script, so torchvision calls Pillow's 8-bit code (the blur excepted, which it
does on tensors). Also a few JPEG, PNG and WebP files of unusual kinds with the pixels that Pillow
decodes.

    python3 python/golden_torchvision.py

Needs torch, torchvision, pillow, opencv-python-headless and numpy; writes to crates/eqco-data/tests/golden (about 150 KB).
"""

import argparse
import json
from pathlib import Path

import cv2
import numpy
import PIL
import torchvision
from PIL import Image
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as F

DEFAULT_OUT = Path(__file__).resolve().parent.parent / "crates/eqco-data/tests/golden"


def photo(width: int, height: int) -> Image.Image:
    """Smooth shades with a sharp disc, a stripe of pure colours and a black and a white corner."""
    y, x = numpy.mgrid[0:height, 0:width]
    red = 255 * x / (width - 1)
    green = 127.5 + 127.5 * numpy.sin(y / 5.0)
    blue = 255 * (1 - y / (height - 1)) * x / (width - 1)
    pixels = numpy.stack([red, green, blue], axis=-1)
    disc = (x - width * 0.6) ** 2 + (y - height * 0.5) ** 2 < (height * 0.25) ** 2
    pixels[disc] = [230, 40, 120]
    for i, colour in enumerate([[255, 0, 0], [255, 255, 0], [0, 255, 0], [0, 255, 255], [0, 0, 255], [255, 0, 255]]):
        pixels[height - 6 : height - 2, 4 + 6 * i : 10 + 6 * i] = colour
    pixels[:5, :5] = 0
    pixels[:5, -5:] = 255
    return Image.fromarray(pixels.round().astype(numpy.uint8))


def noise(width: int, height: int) -> Image.Image:
    random = numpy.random.default_rng(1)
    return Image.fromarray(random.integers(0, 256, (height, width, 3), dtype=numpy.uint8))


def resized_crop(image, left, top, width, height, out_width, out_height):
    size = [out_height, out_width]
    return F.resized_crop(image, top, left, height, width, size, InterpolationMode.BILINEAR, antialias=True)


def evaluate(image, image_size):
    """Resize the shorter side to 256/224 of the size, or to the size if that enlarges; centre crop."""
    shorter = image_size if min(image.size) <= image_size else image_size * 256 // 224
    resized = F.resize(image, [shorter], InterpolationMode.BILINEAR, antialias=True)
    return F.center_crop(resized, [image_size])


TRANSFORMS = {
    "resized_crop": resized_crop,
    "evaluate": evaluate,
    "horizontal_flip": F.hflip,
    "adjust_brightness": F.adjust_brightness,
    "adjust_contrast": F.adjust_contrast,
    "adjust_saturation": F.adjust_saturation,
    "adjust_hue": F.adjust_hue,
    "to_grayscale": lambda image: F.to_grayscale(image, num_output_channels=3),
    "gaussian_blur": lambda image, kernel_size, sigma: F.gaussian_blur(image, [kernel_size] * 2, [sigma] * 2),
    "solarize": F.solarize,
}

# Parameters are positional. The crops enlarge, shrink, do both, keep one axis, touch the borders,
# and take a single pixel.
CASES = [
    ("resized_crop", [[7, 5, 10, 8, 28, 28], [0, 0, 37, 31, 16, 16], [3, 20, 33, 9, 28, 28], [5, 1, 28, 30, 28, 28],
                      [1, 3, 20, 28, 28, 28], [36, 30, 1, 1, 7, 5], [2, 2, 35, 29, 5, 3], [0, 0, 37, 31, 37, 31]]),
    ("evaluate", [[14], [21], [31], [32], [45]]),
    ("horizontal_flip", [[]]),
    ("adjust_brightness", [[0.0], [0.37], [1.0], [1.8]]),
    ("adjust_contrast", [[0.0], [0.37], [1.0], [1.8]]),
    ("adjust_saturation", [[0.0], [0.37], [1.0], [1.8]]),
    ("adjust_hue", [[-0.5], [-0.13], [0.0], [0.02], [0.2], [0.5]]),
    ("to_grayscale", [[]]),
    ("gaussian_blur", [[3, 0.1], [3, 0.8], [5, 2.0], [23, 0.6], [23, 2.0]]),
    ("solarize", [[128], [0], [255]]),
]  # fmt: skip


def write_transforms(out: Path) -> None:
    inputs = {"photo": photo(37, 31), "noise": noise(43, 31)}
    cases = []
    for name, image in inputs.items():
        image.save(out / f"{name}.png", optimize=True)
        for transform, parameter_lists in CASES:
            for number, parameters in enumerate(parameter_lists):
                output = f"{name}_{transform}_{number}.png"
                TRANSFORMS[transform](image, *parameters).save(out / output, optimize=True)
                cases.append({"input": f"{name}.png", "transform": transform, "parameters": parameters, "output": output})
    versions = {"torchvision": torchvision.__version__, "pillow": PIL.__version__}
    lines = ",\n".join("    " + json.dumps(case) for case in cases)
    text = f'{{\n  "versions": {json.dumps(versions)},\n  "cases": [\n{lines}\n  ]\n}}\n'
    (out / "transforms.json").write_text(text)


def write_files(out: Path) -> None:
    """Image files of unusual kinds, each with its pixels as Pillow converts them to RGB."""
    picture = photo(61, 47)
    grey = picture.convert("L")
    kinds = {
        "444.jpg": (picture, {"quality": 90, "subsampling": 0}),
        "420.jpg": (picture, {"quality": 90, "subsampling": 2}),
        "progressive.jpg": (picture, {"quality": 90, "subsampling": 2, "progressive": True}),
        "restarts.jpg": (picture, {"quality": 90, "subsampling": 2, "restart_marker_rows": 1}),
        "grey.jpg": (grey, {"quality": 90}),
        "422.jpg": (picture, {"quality": 90, "subsampling": 1}),
        "optimized.jpg": (picture, {"quality": 97, "subsampling": 0, "optimize": True}),
        "cmyk.jpg": (picture.convert("CMYK"), {"quality": 90, "subsampling": 0}),
        "rgb.png": (picture, {}),
        "grey.png": (grey, {}),
        "palette.png": (picture.quantize(32), {}),
        "transparent.png": (Image.merge("RGBA", [*picture.split(), grey]), {}),
        "one_bit.png": (grey.convert("1"), {}),
        "lossless.webp": (picture, {"lossless": True}),
        "lossy.webp": (picture, {"quality": 90}),
    }
    for name, (image, options) in kinds.items():
        image.save(out / name, **options)
    # Samplings that Pillow does not write: OpenCV does, and wants blue first.
    for name, factor in [("411.jpg", 0x411111), ("440.jpg", 0x121111)]:
        blue_first = numpy.asarray(picture)[..., ::-1]
        factors = [cv2.IMWRITE_JPEG_QUALITY, 90, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, factor]
        assert cv2.imwrite(str(out / name), blue_first, factors)
    # The same data read as YCCK: the last byte of Adobe's segment says so.
    cmyk = bytearray((out / "cmyk.jpg").read_bytes())
    cmyk[cmyk.index(b"Adobe") + 11] = 2
    (out / "ycck.jpg").write_bytes(cmyk)
    for name in [*kinds, "411.jpg", "440.jpg", "ycck.jpg"]:
        expected = name.replace(".", "_") + "_expected.png"
        Image.open(out / name).convert("RGB").save(out / expected, optimize=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=DEFAULT_OUT, help="default: %(default)s")
    out = parser.parse_args().out
    for folder in (out / "transforms", out / "files"):
        folder.mkdir(parents=True, exist_ok=True)
    write_transforms(out / "transforms")
    write_files(out / "files")


if __name__ == "__main__":
    main()
