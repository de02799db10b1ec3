"""Tables as Windows and spreadsheets write them back: the same items, or the line that is wrong."""

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from evals.labels import whole
from evals.lra import data as lra
from evals.lra import readers
from evals.prompts import tasks as prompts
from evals.prompts.items import load
from evals.zeroshot import data, tasks
from rwkv_core.errors import BadInput
from tests.evals import world

WRITTEN: list[Any] = [lambda n: n, float, str, lambda n: f"{n}.0", lambda n: f" {n} "]  # as a table may hold a number
ENDS = ["\r\n", "\r\r\n", "\n"]


@pytest.mark.parametrize("given,number", [
    (2, 2), (2.0, 2), ("2", 2), (" 2.0", 2), ("-1", -1), (True, 1), ("2.5", None), (2.5, None), ("B", None), ("", None),
    (None, None), ([2], None), ("nan", None), (float("inf"), None),
    (10**400, None),
])  # fmt: skip
def test_a_whole_number_however_it_is_written(given: Any, number: int | None) -> None:
    assert whole(given) == number


@pytest.mark.parametrize("name", [name for name, entry in tasks.catalogue().items() if "answers" in entry])
def test_an_answer_is_the_same_however_it_is_written(name: str, tmp_path: Path) -> None:
    entry = tasks.entry(name)
    item = world.item(name, random.Random(0))
    right = item[entry["answer"]]
    if name in ("arc_easy", "arc_challenge", "openbookqa"):
        right = "2"  # some of ARC's choices have numbers
        item["choices"]["label"] = list("1234")
    path = tmp_path / "items.jsonl"
    for write in WRITTEN:
        path.write_text(json.dumps({**item, entry["answer"]: write(int(right))}) + "\n")
        (row,) = data.read(path, entry["fields"], entry["answer"], 0, entry["answers"])
        assert row[entry["answer"]] == right and type(row[entry["answer"]]) is type(right)
    if entry["answers"] != "text":
        for wrong in (7, 0.5, "B", "7.0", None, float("nan"), "-1.0"):
            path.write_text("\n\r\n" + json.dumps({**item, entry["answer"]: wrong}) + "\n")
            with pytest.raises(BadInput, match=r"items\.jsonl, line 3: (no answer|'\w+' is .*, none of \d)"):
                data.read(path, entry["fields"], entry["answer"], 0, entry["answers"])


@pytest.mark.parametrize("change,why", [
    ({"goal": None}, "'goal' holds null"), ({"sol2": ["a", None]}, "'sol2' holds null"), (None, "broken JSON"),
])  # fmt: skip
def test_an_item_that_is_no_question_is_named(change: dict[str, Any] | None, why: str, tmp_path: Path) -> None:
    path, item = tmp_path / "items.jsonl", world.item("piqa", random.Random(0))
    line = "[" * 100_000 if change is None else json.dumps({**item, **change})
    path.write_text(f"{json.dumps(item)}\n{line}\n")
    with pytest.raises(BadInput, match=rf"items\.jsonl, line 2: {why}"):
        data.read(path, ["goal", "sol1", "sol2", "label"], "label", 0, [0, 1])


def test_copas_second_choice_is_not_what_text_stands_for(tmp_path: Path) -> None:
    """lm-eval takes every label but the number 0 for the second choice."""
    (tmp_path / "copa").mkdir()
    items = [{**world.item("copa", random.Random(n)), "label": f"{n % 2}.0"} for n in range(4)]
    (tmp_path / "copa" / "validation.jsonl").write_text("\r\r\n".join(map(json.dumps, items)) + "\r\r\n \r\r\n")
    task = tasks.load("copa", str(tmp_path), "v0.4")
    assert [doc["label"] for doc in task.task_docs] == [0, 1, 0, 1]


@pytest.mark.parametrize("end", ENDS)
def test_listops_of_a_spreadsheet(tmp_path: Path, end: str) -> None:
    path = tmp_path / "basic_test.tsv"
    lines = ["Source\tTarget", "( [MAX 1 2 ] )\t2.0", "", '"( [MIN 1 2 ] )"\t1', "\t", ""]
    path.write_bytes(b"\xef\xbb\xbf" + end.join(lines).encode() + end.encode() * 2)
    assert [sample.label for sample in readers.listops_tsv(path)] == [2, 1]
    path.write_bytes(end.join([*lines[:3], "( )\t1"]).encode())
    with pytest.raises(BadInput, match=r"basic_test\.tsv, line 4: there is no expression"):
        list(readers.listops_tsv(path))
    path.write_bytes(end.join([*lines[:3], "( [MAX 1 2 ] )\t1.5"]).encode())
    with pytest.raises(BadInput, match=r"basic_test\.tsv, line 4: the label is '1\.5'"):
        list(readers.listops_tsv(path))


@pytest.mark.parametrize("end", ENDS)
def test_an_empty_text_of_a_pair_is_one_token_of_padding(tmp_path: Path, end: str) -> None:
    (tmp_path / "tsv_data").mkdir()
    rows = ["1.0\ta\tb\t\tsecond", "0\tc\td\tfirst\t", ""]
    for part in ("train", "eval", "test"):
        (tmp_path / "tsv_data" / f"new_aan_pairs.{part}.tsv").write_bytes(end.join(rows).encode())
    parts = lra.load("retrieval", str(tmp_path), 4, (0, 0, 0), 0)
    assert parts.test.lengths.tolist() == [1, 4] and parts.test.second_lengths is not None
    assert parts.test.second_lengths.tolist() == [4, 1] and not parts.test.tokens[0].any()
    assert parts.test.labels.tolist() == [1, 0]


def test_a_text_of_nothing_is_a_sample_for_every_mixer() -> None:
    import torch

    from evals.lra.encoder import Encoder, Problem, Size
    from evals.lra.mixers import KINDS

    split = lra.packed([readers.Sample(np.array(row, dtype=np.uint8), 0) for row in ([], [1, 2, 3])], 64)
    tokens = torch.from_numpy(np.pad(split.tokens, ((0, 0), (0, 253))).astype(np.int64))
    for name, kind in KINDS.items():
        encoder = Encoder(name, Size(1, 16, 2, 8), Problem(4, 2, 256), bidirectional=kind.bidirectional).eval()
        with torch.inference_mode():
            assert encoder(tokens, torch.from_numpy(split.lengths)).isfinite().all(), name


def test_a_part_without_samples_is_named(tmp_path: Path) -> None:
    (tmp_path / "listops-1000").mkdir()
    for part, more in (("train", "( [MAX 1 2 ] )\t2\n"), ("val", ""), ("test", "( [MAX 1 2 ] )\t2\n")):
        (tmp_path / "listops-1000" / f"basic_{part}.tsv").write_text(f"Source\tTarget\n{more}")
    with pytest.raises(BadInput, match=r"ListOps: .*listops-1000 gives no sample for the validation part"):
        lra.load("listops", str(tmp_path), 4, (0, 0, 0), 0)


@pytest.mark.parametrize("end", ENDS)
def test_the_prompt_studys_tables_of_windows(tmp_path: Path, end: str) -> None:
    def write(name: str, *lines: str) -> None:
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"\xef\xbb\xbf" + end.join(lines).encode() + 2 * end.encode())

    emotions, tweets, rte = (prompts.catalogue()[name] for name in ("goemotions", "tweetsent", "rte"))
    write("goemotions/labels.txt", *emotions.labels)
    write("goemotions/test.tsv", "So sad\t25.0\tid1", "", "Both\t0,27\tid2")
    assert [item.gold for item in load(emotions, str(tmp_path))] == [(25,), (0, 27)]
    write("tweet_eval_sentiment/mapping.txt", *(f"{i}\t{label}" for i, label in enumerate(tweets.labels)))
    write("tweet_eval_sentiment/test_text.txt", "bad day", "good day")
    write("tweet_eval_sentiment/test_labels.txt", "0.0", "2")
    assert [item.gold for item in load(tweets, str(tmp_path))] == [(0,), (2,)]
    row = {"sentence1": "A man sleeps.", "sentence2": "A man rests."}
    write("rte/validation.jsonl", *(json.dumps({**row, "label": label}) for label in (1, 1.0, "1", "1.0")))
    assert [item.gold for item in load(rte, str(tmp_path))] == [(1,)] * 4
    write("rte/validation.jsonl", json.dumps({**row, "label": 0.5}))
    with pytest.raises(BadInput, match=r"rte, item 1: label is 0\.5, none of"):
        load(rte, str(tmp_path))
