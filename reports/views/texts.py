"""What is known of texts that records name by their content alone: configs/texts."""

from __future__ import annotations

import pandas as pd

import configs
from reports.reading import Row
from reports.records.record import Record

HELD_OUT = "held out"
POCKET_WORLD = "pocket world"


def mark(text: str) -> str:
    """What titles call a text of records."""
    source = text.partition(":")[0]
    return POCKET_WORLD if source == "pocket" else f"{source} text"


def read(record: Record) -> Row:
    """How much of its text a training read, and by which tokenizer."""
    return {"text_tokens": record.metrics["tokens"], "tokenizer": record.cell.params["tokenizer"]}


def lines(part: pd.DataFrame) -> list[str]:
    """A sentence on the text of rows of one text: what it is, and how far training read it; none of an unknown text.

    part: with the columns `text`, and of what was trained `tokenizer` and `text_tokens`.
    """
    known = {f"local:{entry['fingerprint']}": entry for entry in configs.read("texts").values()}
    entry = known.get(part.text.iloc[0])
    if entry is None:
        return []
    files = pd.read_csv(configs.ROOT / "texts" / entry["files"])
    training = files[files.training != HELD_OUT]
    sentence = (
        f"The text is {entry['title']} ({entry['source']}), whose {len(files)} files configs/texts/{entry['files']} "
        f"lists; {len(files) - len(training)} of them are held out."
    )
    if "tokenizer" in part and (part.tokenizer == f"file:{entry['tokenizer']}").all():
        ends = training.assign(place=training.training.astype(int)).sort_values("place").tokens.add(1).cumsum()
        most = part.text_tokens.max()
        place = min(int((ends < most).sum()) + 1, len(training))
        sentence += (
            f" Training reads the others in a shuffled order: {most:,.0f} tokens, the most here, end in number {place} "
            f"of {len(training)}."
        )
    return [sentence]
