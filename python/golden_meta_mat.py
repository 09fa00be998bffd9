"""Writes `meta.mat` as in ILSVRC2012's development kit, small, with SciPy, for the tests of `eqco-data`.

The table has the fields of the original. As there, the numbers of the classes (the synsets without children come first) are in
another order than their WNIDs, and texts and numbers are stored in the smallest type that holds them.
"""

from pathlib import Path

import numpy
from scipy.io import savemat

FOLDER = Path(__file__).parent.parent / "crates/eqco-data/tests/golden/devkit"

# ILSVRC2012_ID, WNID, words, children
SYNSETS = [
    (1, "n02119789", "kit fox, Vulpes macrotis", []),
    (2, "n02100735", "English setter", []),
    (3, "n02110185", "Siberian husky", []),
    (4, "n01440764", "tench, Tinca tinca", []),
    (300, "n02096294", "Australian terrier", []),
    (1001, "n00001740", "entity", [1002]),
    (1002, "n02075296", "carnivore", [1, 2, 3]),
]


def table():
    names = ["ILSVRC2012_ID", "WNID", "words", "gloss", "num_children", "children", "wordnet_height", "num_train_images"]
    rows = numpy.zeros((len(SYNSETS), 1), dtype=[(name, object) for name in names])
    for row, (number, wnid, words, children) in zip(rows[:, 0], SYNSETS):
        row["ILSVRC2012_ID"] = float(number)
        row["WNID"] = wnid
        row["words"] = words
        row["gloss"] = "a synset with a gloss that is longer than eight bytes: café"
        row["num_children"] = float(len(children))
        row["children"] = numpy.array([children], dtype=float)
        row["wordnet_height"] = float(bool(children))
        row["num_train_images"] = 1300.0
    return rows


def main():
    FOLDER.mkdir(parents=True, exist_ok=True)
    other = numpy.arange(3.0)
    for name, compressed in [("meta.mat", True), ("meta_uncompressed.mat", False)]:
        savemat(FOLDER / name, {"other": other, "synsets": table()}, do_compression=compressed)


if __name__ == "__main__":
    main()
