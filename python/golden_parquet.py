"""Small Parquet files as their usual writers lay them out, for the tests of eqco-data.

Row `i` of 60 has the bytes `image(i)` and the label `i % 5`; the tests compute both anew. Every tenth of the files with nulls
is null in one way or another. Needs datasets, pillow and pyarrow; written with datasets 5.2.0 and pyarrow 26.0.1.
"""

import io
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from datasets import ClassLabel, Dataset, Features, Image
from PIL import Image as Picture

FOLDER = Path(__file__).parent.parent / "crates/eqco-data/tests/golden/parquet"
ROWS = 60
CLASSES = ["ant", "bee", "cat", "dog", "eel"]
STRUCT = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def image(i):
    """No image, but bytes of many lengths that hardly shrink."""
    return bytes(((i * 31 + 7) * (j + 3) * (j + 3) >> 2) & 255 for j in range(20 + i * 37 % 90))


def column(make=lambda i: {"bytes": image(i), "path": f"{i}.jpg"}, kind=STRUCT):
    return pa.array([make(i) for i in range(ROWS)], kind)


def labels(make=lambda i: i % 5, kind=pa.int64()):
    return pa.array([make(i) for i in range(ROWS)], kind)


def table(columns, features=None, nullable=True):
    fields = [pa.field(name, array.type, nullable) for name, array in columns.items()]
    metadata = {"huggingface": json.dumps({"info": {"features": features}})} if features else None
    return pa.Table.from_arrays(list(columns.values()), schema=pa.schema(fields, metadata))


def write(name, columns, features=None, nullable=True, **options):
    pq.write_table(table(columns, features, nullable), FOLDER / f"{name}.parquet", **options)


FEATURES = {"image": {"_type": "Image"}, "label": {"_type": "ClassLabel", "names": CLASSES}}
USUAL = {"image": column(), "label": labels()}
WITH_NULLS = {
    "image": column(lambda i: None if i % 10 == 3 else {"bytes": None if i % 10 == 4 else image(i), "path": None}),
    "label": labels(lambda i: None if i % 10 == 5 else -1 if i % 10 == 6 else i % 5),
}
SMALL_PAGES = {"write_batch_size": 4, "data_page_size": 400}


def of_datasets():
    """Real pictures, as `Dataset.to_parquet` writes them: 3 x 2 pixels with the values (i, column, row)."""
    pictures = []
    for i in range(ROWS):
        file = io.BytesIO()
        picture = Picture.new("RGB", (3, 2))
        picture.putdata([(i, x, y) for y in range(2) for x in range(3)])
        picture.save(file, "png")
        pictures.append({"bytes": file.getvalue(), "path": f"{i}.png"})
    features = Features({"image": Image(), "label": ClassLabel(names=CLASSES)})
    rows = {"image": pictures, "label": [i % 5 for i in range(ROWS)]}
    Dataset.from_dict(rows, features=features).to_parquet(FOLDER / "datasets.parquet")


def main():
    FOLDER.mkdir(parents=True, exist_ok=True)
    of_datasets()
    # What pyarrow does unless told otherwise: the images of most sets on the hub.
    write("snappy-dictionary", USUAL, FEATURES, row_group_size=25)
    write("plain-v1", USUAL, FEATURES, compression="none", use_dictionary=False, row_group_size=25, **SMALL_PAGES)
    write("plain-v2-index", USUAL, FEATURES, compression="none", use_dictionary=False, data_page_version="2.0",
          write_page_index=True, **SMALL_PAGES)
    write("plain-dictionary", USUAL, FEATURES, compression="none", **SMALL_PAGES)
    # The dictionary is full after some rows, and plain pages follow.
    write("snappy-dictionary-full", USUAL, FEATURES, dictionary_pagesize_limit=800, **SMALL_PAGES)
    write("zstd-v1", USUAL, FEATURES, compression="zstd", use_dictionary=False, row_group_size=40, **SMALL_PAGES)
    write("gzip-dictionary-v2", USUAL, FEATURES, compression="gzip", data_page_version="2.0", **SMALL_PAGES)
    write("lz4-v2", USUAL, FEATURES, compression="lz4", use_dictionary=False, data_page_version="2.0", **SMALL_PAGES)
    write("nulls-plain", WITH_NULLS, FEATURES, compression="none", use_dictionary=False, **SMALL_PAGES)
    write("nulls-snappy-dictionary", WITH_NULLS, FEATURES, row_group_size=25)
    write("nulls-zstd-v2", WITH_NULLS, FEATURES, compression="zstd", data_page_version="2.0", **SMALL_PAGES)
    required = {"jpg": column(image, pa.binary()), "cls": labels(kind=pa.int32())}
    write("required", required, nullable=False, compression="none", use_dictionary=["cls"], **SMALL_PAGES)
    write("unlabelled", {"img": column(), "width": labels()}, compression="none", use_dictionary=False)
    write("secret-labels", {"image": column(), "label": labels(lambda i: -1)}, FEATURES)
    cifar100 = {name: {"_type": "ClassLabel", "names": CLASSES} for name in ["fine_label", "coarse_label"]}
    two = {"img": column(), "coarse_label": labels(lambda i: i % 2), "fine_label": labels()}
    write("two-labels", two, {"img": {"_type": "Image"}, **cifar100}, compression="snappy")
    # These are refused.
    write("brotli", USUAL, FEATURES, compression="brotli")
    write("delta", USUAL, FEATURES, use_dictionary=False, compression="none",
          column_encoding={"image.bytes": "DELTA_LENGTH_BYTE_ARRAY"})
    write("two-images", {"left": column(), "right": column()})
    write("no-image", {"text": labels(str, pa.string()), "label": labels()})
    write("label-beyond", {"image": column(), "label": labels(lambda i: i)}, FEATURES)


main()
