"""Text is the same text on every machine, and what is none is refused with its place."""

import codecs
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from bench import cells, matrix
from evals.language import context, corpus
from evals.prompts import readers as prompts
from evals.zeroshot import data, tasks
from reports.records.store import Store
from rwkv_core import utf8
from rwkv_core.errors import BadInput
from rwkv_core.load import load
from rwkv_core.models import ROOT

TEXT = "Käse 1\nœuf 2\n\nlast"


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r\r\n", "\r"])
@pytest.mark.parametrize("mark", [b"", codecs.BOM_UTF8])
def test_one_text_however_it_was_saved(tmp_path: Path, end: str, mark: bytes) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(mark + TEXT.replace("\n", end).encode())
    assert utf8.read(path) == TEXT
    assert list(utf8.lines(path)) == TEXT.split("\n")


def test_lines_are_cut_where_they_end_and_nowhere_else(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes("one\u2028two\x0bthree\n\n\r\nfour\n".encode())
    assert list(utf8.lines(path)) == ["one\u2028two\x0bthree", "", "", "four"]
    path.write_bytes(b"")
    assert list(utf8.lines(path)) == [] and utf8.read(path) == ""


@pytest.mark.parametrize(
    "content,why",
    [
        ("caf\u00e9".encode("latin-1"), "not UTF-8 text .unexpected end of data at byte 3."),
        (b"[]" * 9000 + b"caf\xe9 noir", "not UTF-8 text .invalid continuation byte at byte 18003."),
        (codecs.BOM_UTF8 + b"ab\xff", "not UTF-8 text .invalid start byte at byte 5."),
        ("caf\u00e9".encode("utf-16"), "UTF-16 or UTF-32"),
        ("caf\u00e9".encode("utf-16-le"), "UTF-16 or UTF-32"),
        ("caf\u00e9".encode("utf-16-be"), "UTF-16 or UTF-32"),
        ("caf\u00e9".encode("utf-32"), "UTF-16 or UTF-32"),
        ("\u041f\u0440\u0438 \u0432".encode("utf-16-le"), "UTF-16, UTF-32 or no text, .* .a zero at byte 7."),
        (codecs.BOM_UTF8 + b"a b\0c", "UTF-16, UTF-32 or no text, .* .a zero at byte 6."),
    ],
)
def test_what_is_no_utf8_is_named_with_its_byte(tmp_path: Path, content: bytes, why: str) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(content)
    task = prompts_task()
    for read in (
        utf8.read,
        lambda path: list(utf8.lines(path)),
        lambda path: list(corpus._documents(str(path.parent), held_out=True, long=0)),
        lambda path: data.read(path, ["text"], "text"),
        lambda path: list(prompts._goemotions(task, path, path)),
    ):
        with pytest.raises(BadInput, match=rf"a\.txt: {why}") as caught:
            read(path)
        assert "\n" not in str(caught.value)


def prompts_task() -> object:
    from evals.prompts.tasks import catalogue

    return catalogue()["goemotions"]


def test_a_mark_before_json_is_no_part_of_it(tmp_path: Path) -> None:
    path = tmp_path / "validation.jsonl"
    path.write_bytes(codecs.BOM_UTF8 + b'{"text": "caf\xc3\xa9"}\r\n\r\n')
    assert data.read(path, ["text"], "text") == [{"text": "café"}]
    (tmp_path / tasks.QUESTIONS).write_bytes(codecs.BOM_UTF8 + json.dumps(["a", "b"]).encode())
    assert tasks.questions(tmp_path, 2) == ["a", "b"]


MATRIX = """
# naïve: the same tokens everywhere
runs:
  - experiment: context
    model: pocket-rwkv4
    text: {folder}
    tokens: 32
    documents: 2
"""


def test_a_run_is_the_same_in_a_locale_of_ascii(tmp_path: Path) -> None:
    folder = tmp_path / "text"
    folder.mkdir()
    (folder / "a.txt").write_text("The café naïvely served crêpes à la carte. " * 40, encoding="utf-8")
    (tmp_path / "m.yaml").write_text(MATRIX.format(folder=folder), encoding="utf-8")
    command = [sys.executable, "-m", "bench.cli", "run", str(tmp_path / "m.yaml"), "--store", str(tmp_path / "store")]
    ascii_only = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    done = subprocess.run(command, cwd=ROOT, env={**os.environ, **ascii_only}, capture_output=True)
    assert done.returncode == 0, done.stderr
    (record,) = Store(tmp_path / "store").read()[0]
    (cell,) = matrix.read(tmp_path / "m.yaml")
    spec = cells.spec(cell)
    assert spec
    tokens = corpus.segments(str(folder), lambda texts: [load(spec).codec.encode(text) for text in texts], 33, 2)
    assert record.id == cell.id
    assert record.metrics["documents_fingerprint"] == context.identified(tokens)["documents_fingerprint"]
