#!/usr/bin/env python3
"""Cut the embedded data set out of Fashion-MNIST.

Takes the first 1,000 training and the first 200 test images of each class, in
file order, from the four IDX files (Debian: package `dataset-fashion-mnist`,
folder /usr/share/datasets/fashion-mnist) and writes one grey PNG contact sheet
per class and split: 40 x 25 tiles for training, 20 x 10 for testing, each tile
28 x 28 pixels, row by row. PNG's row filters make the set a tenth smaller than
gzip does, and any viewer opens the sheets.

Prints one line per sheet with the CRC-32 of its images' pixels (image after
image, as they stand in the IDX files); `SHEETS` in
crates/eqco-data/src/dataset/embedded.rs holds the same numbers, and a test
compares them.

    python3 python/cut_fashion_mnist.py /usr/share/datasets/fashion-mnist

Needs the Python standard library only.
"""

import argparse
import gzip
import struct
import zlib
from pathlib import Path

SIDE = 28
CLASSES = [
    "t-shirt-top", "trouser", "pullover", "dress", "coat",
    "sandal", "shirt", "sneaker", "bag", "ankle-boot",
]  # fmt: skip
# split, IDX file prefix, images per class, tiles per sheet row
SPLITS = [("train", "train", 1000, 40), ("test", "t10k", 200, 20)]
DEFAULT_OUT = Path(__file__).resolve().parent.parent / "crates/eqco-data/data/embedded"


def read_idx(path: Path, magic: int, header: int) -> bytes:
    """Return the payload of a gzip-compressed IDX file after checking its magic number."""
    content = gzip.decompress(path.read_bytes())
    found = struct.unpack(">I", content[:4])[0]
    if found != magic:
        raise SystemExit(f"{path}: expected IDX magic number {magic}, found {found}")
    return content[header:]


def first_of_class(images: bytes, labels: bytes, label: int, count: int) -> list[bytes]:
    """Return the first `count` images that carry `label`, in file order."""
    size = SIDE * SIDE
    picked = [i for i, found in enumerate(labels) if found == label][:count]
    if len(picked) != count:
        raise SystemExit(f"class {label}: expected {count} images, found {len(picked)}")
    return [images[i * size : (i + 1) * size] for i in picked]


def contact_sheet(images: list[bytes], columns: int) -> list[bytes]:
    """Lay the images out row by row; return the pixel rows of the sheet."""
    rows = []
    for start in range(0, len(images), columns):
        tiles = images[start : start + columns]
        for y in range(SIDE):
            rows.append(b"".join(tile[y * SIDE : (y + 1) * SIDE] for tile in tiles))
    return rows


def paeth(left: int, up: int, up_left: int) -> int:
    """The Paeth predictor (PNG specification, section 9.4)."""
    estimate = left + up - up_left
    distances = (abs(estimate - left), abs(estimate - up), abs(estimate - up_left))
    return (left, up, up_left)[distances.index(min(distances))]


def filter_row(row: bytes, above: bytes) -> bytes:
    """Apply the PNG row filter with the least sum of absolute differences."""
    left = b"\0" + row[:-1]
    up_left = b"\0" + above[:-1]
    candidates = [
        row,
        bytes((x - a) & 255 for x, a in zip(row, left)),
        bytes((x - b) & 255 for x, b in zip(row, above)),
        bytes((x - (a + b) // 2) & 255 for x, a, b in zip(row, left, above)),
        bytes((x - paeth(a, b, c)) & 255 for x, a, b, c in zip(row, left, above, up_left)),
    ]
    costs = [sum(min(x, 256 - x) for x in candidate) for candidate in candidates]
    best = costs.index(min(costs))
    return bytes([best]) + candidates[best]


def write_grey_png(path: Path, rows: list[bytes]) -> None:
    """Write 8-bit grey rows as a PNG file."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    width = len(rows[0])
    above = bytes(width)
    filtered = []
    for row in rows:
        filtered.append(filter_row(row, above))
        above = row
    header = struct.pack(">IIBBBBB", width, len(rows), 8, 0, 0, 0, 0)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(b"".join(filtered), 9))
        + chunk(b"IEND", b"")
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source", type=Path, help="folder with the four gzip-compressed IDX files")
    parser.add_argument("--out", type=Path, default=DEFAULT_OUT, help="default: %(default)s")
    arguments = parser.parse_args()
    for split, prefix, count, columns in SPLITS:
        images = read_idx(arguments.source / f"{prefix}-images-idx3-ubyte.gz", 2051, 16)
        labels = read_idx(arguments.source / f"{prefix}-labels-idx1-ubyte.gz", 2049, 8)
        folder = arguments.out / split
        folder.mkdir(parents=True, exist_ok=True)
        for label, name in enumerate(CLASSES):
            picked = first_of_class(images, labels, label, count)
            path = folder / f"{label}-{name}.png"
            write_grey_png(path, contact_sheet(picked, columns))
            checksum = zlib.crc32(b"".join(picked))
            print(f"{split}/{path.name}: {path.stat().st_size} bytes, pixels {checksum:#010x}")


if __name__ == "__main__":
    main()
