"""Cuts photographs like ImageNet's out of Debian's freely licensed wallpapers, for `cargo xtask bench loader`.

    python3 python/cut_photographs.py FOLDER [--count 256]

Needs Pillow, `apt-get` and `dpkg-deb`. Downloads the packages below (about 200 MB) into FOLDER/packages, where they stay for the
next time, and writes FOLDER/NNN.jpg and FOLDER/LICENCES, the packages' own notices. The images stay on the machine that cuts
them: their licences (CC-BY-SA, CC-BY, CC0, GPL, LGPL) would bind whoever passes them on.

ImageNet's training files measure 468 x 401 pixels and 110 KB on average; 76 % are 4:4:4, 20 % 4:2:0, 2 % grey. So are these;
the other 2 % are 4:2:2. The same packages and Pillow give the same files: every draw follows from a fixed seed.
"""

import argparse
import io
import random
import subprocess
from pathlib import Path

from PIL import Image

PACKAGES = [
    "gnome-backgrounds",
    "lomiri-wallpapers-16.04",
    "lomiri-wallpapers-20.04",
    "mate-backgrounds",
    "plasma-workspace-wallpapers",
]
# Width, height and how many in a hundred.
SIZES = [
    (500, 375, 42), (375, 500, 16), (500, 333, 12), (333, 500, 5), (500, 500, 5), (640, 480, 4),
    (400, 300, 7), (320, 240, 5), (800, 600, 2), (1024, 768, 1), (240, 320, 1),
]
# Pillow's name of a sampling (None: grey) and how many in a hundred.
SAMPLINGS = [("4:4:4", 76), ("4:2:0", 20), ("4:2:2", 2), (None, 2)]
BYTES_A_PIXEL = (0.40, 0.95)
LEAST_SIDE = 1000


def unpack(folder):
    """Downloads and unpacks the packages; returns their pictures, sorted, the largest one of each folder alone."""
    packages = folder / "packages"
    packages.mkdir(parents=True, exist_ok=True)
    for name in PACKAGES:
        if not (packages / name).is_dir():
            subprocess.run(["apt-get", "download", name], cwd=packages, check=True)
            [file] = packages.glob(f"{name}_*.deb")
            subprocess.run(["dpkg-deb", "-x", file, packages / name], check=True)
    notices = [path.read_text() for path in sorted(packages.glob("*/usr/share/doc/*/copyright"))]
    (folder / "LICENCES").write_text("\n\n".join(notices))
    largest = {}
    for path in sorted(packages.rglob("*")):
        if path.suffix.lower() in (".jpg", ".jpeg", ".webp", ".png") and path.is_file() and not path.is_symlink():
            with Image.open(path) as picture:
                if min(picture.size) < LEAST_SIDE:
                    continue
                # KDE's packages hold each picture in many sizes in one folder.
                key = path.parent if path.parent.name.startswith("images") else path
                area = picture.size[0] * picture.size[1]
            if area > largest.get(key, (0, None))[0]:
                largest[key] = (area, path)
    return [path for _, path in largest.values()]


def drawn(choices, dice):
    """One of `choices`, each a tuple with its weight in the last place."""
    return dice.choices(choices, [choice[-1] for choice in choices])[0][:-1]


def cut(picture, dice):
    """A random part of the picture at the size of one of ImageNet's images."""
    width, height = drawn(SIZES, dice)
    largest = min(picture.width / width, picture.height / height)
    scale = dice.uniform(0.4, 1.0) * largest
    box_width, box_height = width * scale, height * scale
    left, top = dice.uniform(0, picture.width - box_width), dice.uniform(0, picture.height - box_height)
    box = (left, top, left + box_width, top + box_height)
    return picture.resize((width, height), Image.Resampling.LANCZOS, box=box)


def encoded(picture, dice):
    """JPEG bytes of about the drawn number a pixel: ImageNet's qualities differ, and so does what its images show."""
    [sampling] = drawn(SAMPLINGS, dice)
    wanted = picture.width * picture.height * dice.uniform(*BYTES_A_PIXEL)
    if sampling:
        options = {"subsampling": sampling}
    else:
        picture, options = picture.convert("L"), {}
    low, high, best = 60, 99, None
    while low <= high:
        quality = (low + high) // 2
        file = io.BytesIO()
        picture.save(file, "JPEG", quality=quality, **options)
        best = file.getvalue()
        if len(best) < wanted:
            low = quality + 1
        else:
            high = quality - 1
    return best


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--count", type=int, default=256)
    arguments = parser.parse_args()
    paths = unpack(arguments.folder)
    pictures = {}
    sizes = []
    dice = random.Random(468401)
    for number in range(arguments.count):
        path = paths[number % len(paths)]
        if path not in pictures:
            picture = Image.open(path).convert("RGB")
            picture.thumbnail((3000, 3000))
            pictures[path] = picture
        picture = cut(pictures[path], dice)
        file = encoded(picture, dice)
        (arguments.folder / f"{number:03}.jpg").write_bytes(file)
        sizes.append((picture.width, picture.height, len(file)))
    width, height, length = (sum(column) / len(sizes) for column in zip(*sizes))
    print(f"{len(sizes)} of {len(paths)} pictures: mean {width:.0f} x {height:.0f} pixels, {length / 1000:.0f} KB")


if __name__ == "__main__":
    main()
