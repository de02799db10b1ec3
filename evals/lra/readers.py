"""Long Range Arena's data as it was released, IMDb's and CIFAR-10's folders: files -> samples."""

from __future__ import annotations

import csv
import io
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from evals import labels
from evals.lra import listops
from rwkv_core import utf8
from rwkv_core.errors import BadInput

GREY = np.array([0.299, 0.587, 0.114])  # ITU-R BT.601, as LRA's own readers have it
LISTOPS_HEADER = ["Source", "Target"]
LISTOPS_NUMBERS = {**{token: number for number, token in enumerate(listops.TOKENS)}, "X": listops.CLOSE}
CIFAR_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
NUMPY_FILE = b"\x93NUMPY"
LABEL = 3  # column of a Pathfinder metadata row


class Sample(NamedTuple):
    """first, second: bytes or pixels, uint8; second only of pairs."""

    first: np.ndarray
    label: int
    second: np.ndarray | None = None


def listops_tsv(path: Path) -> Iterator[Sample]:
    """basic_{train,val,test}.tsv: an expression with parentheses, which are dropped, and its value."""
    rows = _rows(path, csv.QUOTE_MINIMAL)
    header = next(rows, (1, []))[1]
    if header != LISTOPS_HEADER:
        raise BadInput(f"{path}: the first line must be {LISTOPS_HEADER!r} with a tab between, not {header!r}")
    for number, row in rows:
        where = f"{path}, line {number}"
        source, value = _columns(row, 2, where)
        words = source.replace("(", " ").replace(")", " ").split()
        if unknown := [word for word in words if word not in LISTOPS_NUMBERS]:
            raise BadInput(f"{where}: {unknown[0]!r} is no word of ListOps")
        if not words:
            raise BadInput(f"{where}: there is no expression before the tab")
        tokens = np.array([LISTOPS_NUMBERS[word] for word in words], dtype=np.uint8)
        yield Sample(tokens, _label(value, 10, where))


def aan_tsv(path: Path) -> Iterator[Sample]:
    """new_aan_pairs.{train,eval,test}.tsv: label, two ids, two texts; no header, nothing quoted."""
    for number, row in _rows(path, csv.QUOTE_NONE):
        where = f"{path}, line {number}"
        label, _, _, first, second = _columns(row, 5, where)
        yield Sample(_bytes(first), _label(label, 2, where), _bytes(second))


def imdb(folder: Path) -> Iterator[Sample]:
    """aclImdb/{train,test}: pos/*.txt and neg/*.txt."""
    for label, name in enumerate(("neg", "pos")):
        paths = sorted((folder / name).glob("*.txt"))
        if not paths:
            raise BadInput(f"{folder / name}: no .txt files in there; aclImdb/train and aclImdb/test have them")
        for path in paths:
            yield Sample(np.frombuffer(path.read_bytes(), dtype=np.uint8), label)


def cifar_batches(paths: list[Path]) -> Iterator[Sample]:
    """data_batch_1..5 or test_batch of cifar-10-batches-py."""
    for path in paths:
        try:
            batch = _Arrays(io.BytesIO(path.read_bytes()), encoding="bytes").load()
            images, classes = np.asarray(batch[b"data"]), list(batch[b"labels"])
        except Exception as error:  # a damaged pickle can raise anything
            raise BadInput(f"{path}: no batch of CIFAR-10 ({error or type(error).__name__})") from error
        if images.dtype != np.uint8 or images.shape != (len(classes), 3 * 32 * 32):
            raise BadInput(f"{path}: images are {images.dtype} {images.shape}, not uint8 ({len(classes)}, 3072)")
        for number, (image, raw_label) in enumerate(zip(images, classes, strict=True), 1):
            label = _label(raw_label, len(CIFAR_CLASSES), f"{path}, image {number}")
            yield Sample(grey(image.reshape(3, 32, 32).transpose(1, 2, 0)), label)


def cifar_folders(folder: Path) -> Iterator[Sample]:
    """A folder for each class with its images."""
    for label, name in enumerate(CIFAR_CLASSES):
        paths = sorted(path for path in (folder / name).glob("*") if path.suffix in (".png", ".jpg", ".jpeg"))
        if not paths:
            raise BadInput(f"{folder / name}: no images in there; each of {', '.join(CIFAR_CLASSES)} needs a folder")
        for path in paths:
            image = _image(path, "RGB")
            if image.shape != (32, 32, 3):
                raise BadInput(f"{path}: {image.shape[1]}x{image.shape[0]} pixels, not 32x32")
            yield Sample(grey(image), label)


def pathfinder(folder: Path, size: int) -> Iterator[Sample]:
    """One difficulty, as in pathfinder32/curv_contour_length_14: imgs/<b>/sample_<i>.png, and metadata/<b>.npy, which
    is text in the release and numpy's in what the present generator writes. An empty image is left out, as by LRA's
    own reader.
    """
    batches = sorted((folder / "metadata").glob("*.npy"), key=lambda path: (len(path.stem), path.stem))
    if not batches:
        raise BadInput(f"{folder / 'metadata'}: no .npy files in there; unpack lra_release.gz")
    for batch in batches:
        for number, row in enumerate(_metadata(batch), 1):
            where = f"{batch}, row {number}"
            if len(row) <= LABEL:
                raise BadInput(f"{where}: {len(row)} columns; the label is the fourth")
            path = folder / row[0] / row[1]
            if path.is_file() and path.stat().st_size == 0:
                continue
            image = _image(path, "L")
            if image.shape != (size, size):
                raise BadInput(f"{path}: {image.shape[1]}x{image.shape[0]} pixels, not {size}x{size}")
            yield Sample(image.flatten(), _label(row[LABEL], 2, where))


def grey(image: np.ndarray) -> np.ndarray:
    """[H, W, 3] uint8 -> [H * W] uint8."""
    return np.rint(image @ GREY).astype(np.uint8).flatten()


def _rows(path: Path, quoting: Any) -> Iterator[tuple[int, list[str]]]:
    """Each row that is not blank, and the line that it ends on."""
    csv.field_size_limit(1 << 24)
    rows = csv.reader(utf8.lines(path), delimiter="\t", quoting=quoting)
    try:
        for row in rows:
            if any(cell.strip() for cell in row):
                yield rows.line_num, row
    except OSError as error:
        raise BadInput(f"{path}: cannot be read ({error.strerror}); unpack lra_release.gz") from error
    except csv.Error as error:
        raise BadInput(f"{path}, line {rows.line_num}: not a row of a table ({error})") from error


def _columns(row: list[str], count: int, where: str) -> list[str]:
    if len(row) != count:
        raise BadInput(f"{where}: {len(row)} columns, not {count}; is the file whole?")
    return row


def _label(raw_label: Any, classes: int, where: str) -> int:
    value = labels.whole(raw_label)
    if value is None or value not in range(classes):
        raise BadInput(f"{where}: the label is {raw_label!r}, not one of 0 to {classes - 1}")
    return value


def _bytes(text: str) -> np.ndarray:
    return np.frombuffer(text.encode(), dtype=np.uint8)


def _image(path: Path, mode: str) -> np.ndarray:
    try:
        with Image.open(path) as image:
            return np.asarray(image.convert(mode))
    except Exception as error:  # a damaged image, or one that claims to be huge
        raise BadInput(f"{path}: no image that can be read ({error})") from error


def _metadata(path: Path) -> list[list[str]]:
    content = path.read_bytes()
    if not content.startswith(NUMPY_FILE):
        return [line.split() for line in content.decode("utf-8-sig", errors="replace").splitlines() if line.strip()]
    try:
        return [[str(one) for one in row] for row in np.load(io.BytesIO(content), allow_pickle=False)]
    except Exception as error:  # a damaged header can claim any size and type
        raise BadInput(f"{path}: no array that can be read ({error or type(error).__name__})") from error


class _Arrays(pickle.Unpickler):
    """Numbers, lists and numpy's arrays, and nothing that could run code."""

    ALLOWED = {  # noqa: RUF012
        ("numpy.core.multiarray", "_reconstruct"),
        ("numpy._core.multiarray", "_reconstruct"),
        ("numpy", "ndarray"),
        ("numpy", "dtype"),
        ("_codecs", "encode"),
    }

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in self.ALLOWED:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which is not loaded")
        return super().find_class(module, name)
