"""Long Range Arena's data: generators by the published rules, readers of the released forms, whole and broken."""

import collections
import pickle
import re
import statistics
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import label as connected

from evals.lra import data, listops, pathfinder, readers
from evals.lra.readers import Sample
from rwkv_core.errors import BadInput, Unsupported


@pytest.fixture(scope="module")
def drawn() -> list[listops.Example]:
    return listops.examples(2000, 0)


def value(words: list[str]) -> int:
    """By the written rules, from a stack."""
    stack: list[Any] = []
    for word in words:
        if word != "]":
            stack.append(int(word) if word.isdigit() else word)
            continue
        arguments = []
        while isinstance(stack[-1], int):
            arguments.append(stack.pop())
        rule = stack.pop()
        stack.append(
            {
                "[MIN": min(arguments),
                "[MAX": max(arguments),
                "[MED": int(statistics.median(arguments)),
                "[SM": sum(arguments) % 10,
            }[rule]
        )
    (found,) = stack
    return int(found)


def test_listops_follows_its_rules_and_published_statistics(drawn: list[listops.Example]) -> None:
    words = [[listops.TOKENS[token] for token in one.tokens] for one in drawn]
    assert [value(one) for one in words[:300]] == [one.value for one in drawn[:300]]
    lengths = [len(one) for one in words]
    assert min(lengths) > 500 and max(lengths) < 2000 and len({one.tokens for one in drawn}) == 2000
    assert np.mean(lengths) == pytest.approx(1045, abs=35)  # of 100,000 drawn by these rules: 1040
    depths = [max(np.cumsum([(w.startswith("[")) - (w == "]") for w in one])) for one in words]
    assert max(depths) <= listops.DEEPEST - 1
    counts = collections.Counter(one.value for one in drawn)
    assert counts.most_common(1)[0][1] / 2000 == pytest.approx(0.169, abs=0.03)
    by_root = collections.defaultdict(collections.Counter)
    for one in drawn:
        by_root[one.tokens[0]][one.value] += 1
    right = sum(counter.most_common(1)[0][1] for counter in by_root.values())
    assert right / 2000 == pytest.approx(0.371, abs=0.03)  # the famous plateau of 36 to 37 %


def test_the_root_rule_is_learned_in_training_and_scored_elsewhere() -> None:
    def part(firsts: list[int], labels: list[int]) -> data.Split:
        tokens = np.array(firsts)[:, None]
        return data.Split(tokens, np.ones(len(firsts)), np.array(labels))

    train = part([1, 1, 1, 2, 2], [9, 9, 0, 3, 3])
    assert data.root_rule(train, part([1, 2, 2, 5], [0, 3, 3, 0])) == 0.5  # what was never seen is never right


def test_listops_is_the_same_for_the_same_seed(drawn: list[listops.Example]) -> None:
    assert listops.examples(600, 0) == drawn[:600]
    assert listops.examples(50, 1) != drawn[:50]
    short = listops.examples(100, 0, (20, 64))
    assert all(20 < len(one.tokens) < 64 for one in short)


def test_both_classes_of_pathfinder_differ_by_the_dots_alone() -> None:
    settings = pathfinder.SIZES[32]
    images, labels = zip(*(pathfinder.draw(np.random.default_rng(i), settings) for i in range(60)), strict=True)
    assert 0.3 < np.mean(labels) < 0.7
    for image in images:
        assert image.shape == (32, 32) and image.dtype == np.uint8 and image[0].max() < 255
    ink = [np.mean([image.mean() for image, own in zip(images, labels, strict=True) if own == k]) for k in (0, 1)]
    assert ink[0] == pytest.approx(ink[1], rel=0.12)
    again, own = pathfinder.draw(np.random.default_rng(3), settings)
    assert np.array_equal(again, images[3]) and own == labels[3]


def test_a_curve_of_pathfinder_has_its_dashes() -> None:
    settings = pathfinder.Settings(256, 1, 27, 1.0, 9, 4, 0, 1.8, 5, 1.5, (3,))
    counts = []
    for seed in range(5):
        image, _ = pathfinder.draw(np.random.default_rng(seed), settings)
        counts.append(connected(image > 60, np.ones((3, 3)))[1])
    assert 12 <= statistics.median(counts) <= 20  # two curves of nine dashes, some of which touch


def test_curves_of_pathfinder_begin_at_their_seeds_and_short_ones_are_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = pathfinder.SIZES[64]
    for seed in range(20):
        canvas = pathfinder._Canvas(np.random.default_rng(seed), settings)
        curve = canvas.begin(np.array([30, 30]))
        assert curve.start.tolist() == [30, 30]
        assert np.hypot(*(curve.end - curve.start)) == pytest.approx(settings.dash, abs=1)
    canvas.short()
    before, mask = canvas.image.copy(), canvas.mask.copy()

    def stuck(canvas: Any, curve: Any) -> None:
        raise pathfinder.Stuck

    monkeypatch.setattr(pathfinder._Canvas, "extend", stuck)
    canvas.short()
    assert np.array_equal(canvas.image, before) and np.array_equal(canvas.mask, mask)
    monkeypatch.undo()
    canvas.short()
    assert canvas.image.sum() > before.sum()


def test_listops_is_read_as_released(tmp_path: Path) -> None:
    folder = tmp_path / "listops-1000"
    folder.mkdir()
    for part in ("train", "val", "test"):
        lines = ["Source\tTarget", "( ( ( [MAX 4 ) ( ( [SM 7 ) 6 ] ) ) ] )\t4", "( ( [MIN 1 ) 2 ] )\t1"]
        (folder / f"basic_{part}.tsv").write_text("\n".join(lines) + "\n")
    parts = data.load("listops", str(tmp_path), 6, (0, 0, 0), 0)
    tokens = [listops.TOKENS[token - 1] for token in parts.test.tokens[0]]
    assert tokens == ["[MAX", "4", "[SM", "7", "6", "]"]  # cut at six
    assert parts.test.lengths.tolist() == [6, 4] and parts.test.labels.tolist() == [4, 1]
    path = folder / "basic_test.tsv"
    for text, why in (
        ("Target\tSource\n", "first line must be"),
        ("Source\tTarget\n( [MAX 1 2 ] )\n", "line 2: 1 columns"),
        ("Source\tTarget\n( [AVG 1 2 ] )\t1\n", "line 2: '.AVG' is no word"),
        ("Source\tTarget\n( [MAX 1 2 ] )\t12\n", "line 2: the label is '12'"),
    ):
        path.write_text(text)
        with pytest.raises(BadInput, match=why):
            data.load("listops", str(tmp_path), 6, (0, 0, 0), 0)
    path.unlink()
    with pytest.raises(BadInput, match=r"basic_test.tsv: cannot be read .*lra_release"):
        data.load("listops", str(tmp_path), 6, (0, 0, 0), 0)


def test_aan_is_read_without_header_and_quotes(tmp_path: Path) -> None:
    (tmp_path / "tsv_data").mkdir()
    for part in ("train", "eval", "test"):
        rows = '1.0\tA\tB\ta "quoted text\tother text\n0.0\tC\tD\tx\ty\n'
        (tmp_path / "tsv_data" / f"new_aan_pairs.{part}.tsv").write_text(rows)
    parts = data.load("retrieval", str(tmp_path), 100, (0, 0, 0), 0)
    assert parts.train.second is not None and parts.train.second_lengths is not None
    assert bytes((parts.train.tokens[0][:14] - 1).astype(np.uint8)) == b'a "quoted text'
    assert parts.train.labels.tolist() == [1, 0] and parts.train.second_lengths.tolist() == [10, 1]
    (tmp_path / "tsv_data" / "new_aan_pairs.test.tsv").write_text("1.0\tA\tB\tonly one\n")
    with pytest.raises(BadInput, match="line 1: 4 columns, not 5"):
        data.load("retrieval", str(tmp_path), 100, (0, 0, 0), 0)


def imdb(tmp_path: Path) -> None:
    for part in ("train", "test"):
        for label in ("pos", "neg"):
            folder = tmp_path / "aclImdb" / part / label
            folder.mkdir(parents=True)
            for i in range(20):
                (folder / f"{i}_7.txt").write_text(f"{part} {label} {i}<br />")


def test_imdb_keeps_a_tenth_of_its_training_part(tmp_path: Path) -> None:
    imdb(tmp_path)
    parts = data.load("text", str(tmp_path), 64, (0, 0, 0), 0)
    assert [len(split.labels) for split in parts[:3]] == [36, 4, 40]
    texts = [{bytes((row[row > 0] - 1).astype(np.uint8)) for row in split.tokens} for split in parts[:3]]
    assert not texts[0] & texts[1] and len(texts[0] | texts[1]) == 40
    assert parts.test.majority == 0.5 and data.load("text", str(tmp_path), 64, (10, 0, 0), 0).train.labels.shape == (
        10,
    )
    with pytest.raises(Unsupported, match="not generated"):
        data.load("text", "generated", 64, (1, 1, 1), 0)
    with pytest.raises(BadInput, match=r"neg: no .txt files"):
        data.load("text", str(tmp_path / "aclImdb"), 64, (0, 0, 0), 0)


def test_cifar_is_read_from_batches_and_from_folders(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (20, 3, 32, 32), dtype=np.uint8)
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    batch = {b"data": images.reshape(20, -1), b"labels": [i % 10 for i in range(20)], b"batch_label": b"x"}
    for name in ("test_batch", *(f"data_batch_{i}" for i in range(1, 6))):
        (folder / name).write_bytes(pickle.dumps(batch, protocol=2))
    parts = data.load("image", str(tmp_path), 1024, (0, 0, 0), 0)
    assert len(parts.train.labels) == 90 and len(parts.validation.labels) == 10
    weighted = 0.299 * images[0, 0] + 0.587 * images[0, 1] + 0.114 * images[0, 2]
    assert np.abs(parts.test.tokens[0].astype(int) - 1 - weighted.flatten()).max() <= 0.5
    small = data.load("image", str(tmp_path), 64, (0, 0, 0), 0).test.tokens
    patches = (parts.test.tokens.astype(int) - 1).reshape(-1, 8, 4, 8, 4).mean((2, 4))
    assert np.abs(small.astype(int) - 1 - patches.reshape(-1, 64)).max() <= 0.5
    with pytest.raises(BadInput, match="length 100: a CIFAR-10 image has 1024 pixels"):
        data.load("image", str(tmp_path), 100, (0, 0, 0), 0)
    for name in readers.CIFAR_CLASSES:
        for part in ("train", "test"):
            own = tmp_path / "cifar10" / part / name
            own.mkdir(parents=True)
            Image.fromarray(images[0].transpose(1, 2, 0)).save(own / "0.png")
    (folder / "test_batch").unlink()
    found = list(readers.cifar_folders(tmp_path / "cifar10" / "test"))
    assert [sample.label for sample in found] == list(range(10))
    assert np.array_equal(found[0].first + 1, parts.test.tokens[0])


class Bomb:
    def __reduce__(self) -> Any:
        return print, ("it ran",)


def test_a_pickle_that_would_run_code_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "test_batch"
    path.write_bytes(pickle.dumps({b"data": Bomb(), b"labels": []}, protocol=2))
    with pytest.raises(BadInput, match=re.escape("it asks for __builtin__.print")):
        list(readers.cifar_batches([path]))
    path.write_bytes(pickle.dumps({b"labels": []}))
    with pytest.raises(BadInput, match="no batch of CIFAR-10"):
        list(readers.cifar_batches([path]))
    assert "it ran" not in capsys.readouterr().out


@pytest.mark.parametrize("as_text", [True, False])
def test_pathfinder_is_read_with_both_kinds_of_metadata(tmp_path: Path, as_text: bool) -> None:
    folder = tmp_path / "pathfinder32" / "curv_contour_length_14"
    (folder / "metadata").mkdir(parents=True)
    (folder / "imgs" / "0").mkdir(parents=True)
    rows = []
    for i in range(20):
        path = folder / "imgs" / "0" / f"sample_{i}.png"
        if i == 3:
            path.touch()  # as one is in the release
        else:
            Image.fromarray(np.full((32, 32), i, dtype=np.uint8)).save(path)
        rows.append(["imgs/0", f"sample_{i}.png", str(i), str(i % 2), "1.0", "14", "4", "2", "0.5", "1", "1"])
    if as_text:
        (folder / "metadata" / "0.npy").write_text("\n".join(" ".join(row) for row in rows) + "\n")
    else:
        np.save(folder / "metadata" / "0.npy", np.array(rows))
    parts = data.load("pathfinder", str(tmp_path), 1024, (0, 0, 0), 0)
    assert [len(split.labels) for split in parts[:3]] == [8, 1, 10]  # 19: tenths of it, and the rest
    assert parts.train.tokens[:, 0].tolist() == [1, 2, 3, 5, 6, 7, 8, 9]
    (folder / "imgs" / "0" / "sample_5.png").write_bytes(b"broken")
    with pytest.raises(BadInput, match=r"sample_5.png: no image"):
        data.load("pathfinder", str(tmp_path), 1024, (0, 0, 0), 0)


def test_the_stand_in_for_aan_pairs_halves_of_one_document() -> None:
    parts = data.load("retrieval", "generated", 400, (200, 20, 20), 0)
    assert parts.source == "stand-in" and parts.train.second is not None
    shared = []
    for first, second in zip(parts.train.tokens, parts.train.second, strict=True):
        names = [
            set(re.findall(r"\b[A-Z][a-z]+\b", bytes((row[row > 0] - 1).astype(np.uint8)).decode()))
            for row in (first, second)
        ]
        shared.append(len(names[0] & names[1] - {"The"}))
    labels = parts.train.labels
    assert np.mean(np.array(shared)[labels == 1]) > 3 * np.mean(np.array(shared)[labels == 0])
    assert 0.4 < labels.mean() < 0.6


def test_what_was_generated_is_kept_and_what_a_folder_lacks_is_generated(tmp_path: Path) -> None:
    counts = (30, 5, 5)
    for name in ("listops", "retrieval"):
        once = data.load(name, "generated", 64, counts, 0, tmp_path)
        (kept,) = tmp_path.glob(f"lra-{name}-*.npz")
        written = kept.stat().st_mtime_ns
        assert data.folder(name, str(tmp_path)) is None  # so that a matrix names it generated
        again = data.load(name, "generated", 64, counts, 0, tmp_path)
        assert kept.stat().st_mtime_ns == written and again.source == once.source != "files"
        assert (
            data.fingerprint(again)
            == data.fingerprint(once)
            == data.fingerprint(data.load(name, "generated", 64, counts, 0))
        )
        assert data.fingerprint(data.load(name, "generated", 64, counts, 1, tmp_path)) != data.fingerprint(once)
        assert np.array_equal(again.test.lengths, once.test.lengths)
        with pytest.raises(BadInput, match="cannot be read"):  # what was planned as files is never generated
            data.load(name, str(tmp_path), 64, counts, 0, tmp_path)


def test_parts_are_packed_with_padding() -> None:
    split = data.packed(
        [Sample(np.array([0, 5], dtype=np.uint8), 1), Sample(np.array([255] * 9, dtype=np.uint8), 0)], 4
    )
    assert split.tokens.tolist() == [[1, 6, 0, 0], [256, 256, 256, 256]] and split.lengths.tolist() == [2, 4]


def test_damaged_files_are_one_line(tmp_path: Path) -> None:
    """A bit flipped here, a byte lost there: whatever the libraries raise, the file is named."""
    rng = np.random.default_rng(0)
    images, labels = np.zeros((3, 3072), dtype=np.uint8), [1, 2, 3]
    batch, metadata, archive = tmp_path / "data_batch_1", tmp_path / "0.npy", tmp_path / "kept.npz"
    batch.write_bytes(pickle.dumps({b"data": images, b"labels": labels}))
    np.save(metadata, np.array([["imgs/0", "sample_0.png", "0", "1"]] * 9))
    part = data.Split(np.ones((4, 3), np.uint16), np.full(4, 3), np.zeros(4, int))
    data._save_archive([part, part, part], archive)
    image = tmp_path / "0.png"
    Image.fromarray(np.zeros((32, 32), dtype=np.uint8)).save(image)
    readings: dict[Path, Any] = {
        batch: lambda path: list(readers.cifar_batches([path])),
        metadata: readers._metadata,
        archive: data._load_archive,
        image: lambda path: readers._image(path, "L"),
    }
    for path, read in readings.items():
        whole, refused = path.read_bytes(), 0
        for _ in range(60):
            content = bytearray(whole)
            reach = len(content) if rng.random() < 0.3 else min(200, len(content))
            content[rng.integers(reach)] ^= 1 << rng.integers(8)
            path.write_bytes(content[: len(content) - (3 if rng.random() < 0.2 else 0)])
            try:
                read(path)
            except BadInput as error:
                refused += str(path) in str(error)
        assert refused > 10


@pytest.mark.parametrize("label", [10, -5, 300, 1.5])
def test_cifars_labels_are_its_classes(label: float, tmp_path: Path) -> None:
    batch = tmp_path / "data_batch_1"
    batch.write_bytes(pickle.dumps({b"data": np.zeros((2, 3072), dtype=np.uint8), b"labels": [3, label]}))
    with pytest.raises(BadInput, match=rf"data_batch_1, image 2: the label is {label}, not one of 0 to 9"):
        list(readers.cifar_batches([batch]))
