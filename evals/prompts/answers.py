"""What label a generated text gives: one that it names, or none."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

MARKER = "answer:"
AFFIRMED = r"\b(?:no doubt|not only)\b"  # say nothing against what follows
NEGATED = r"\b(?:not|no|non|never)(?: \w+){0,2} $"  # before a label's words, nothing but words between


def parse(text: str, answers: Mapping[str, Sequence[str]], reasoning: bool = False) -> str | None:
    """The label whose words stand in the text; None where none does or those of several do.

    Words count as a whole, in either case, a space, hyphen or underscore alike, and longer ones first: "not entailment"
    is not entailment. A label that is negated ("not an entailment") says the other of two, and nothing among more.
    Without `reasoning` only the text's first line counts: a model that is not tuned to chat goes on with questions and
    answers of its own. Where the text says "Answer:", only what follows the last one counts. Where the words are single
    letters (MathQA's options), the letter must be said to be the answer; without `reasoning` it may also begin the
    text. "a" counts only where no word follows it, since it is a word of English too.
    """
    plain = _plain(text if reasoning else text.strip().partition("\n")[0])
    label_of_word = {_plain(word): label for label, words in answers.items() for word in words}
    if all(len(word) == 1 for word in label_of_word):
        return label_of_word.get(_letter(plain, "".join(label_of_word), reasoning))
    after = plain[plain.rfind(MARKER) + len(MARKER) :] if MARKER in plain else plain
    labels = set()
    for match in re.finditer("|".join(rf"(?<!\w){re.escape(word)}(?!\w)" for word in _longest(label_of_word)), after):
        label = label_of_word[match[0]]
        if re.search(NEGATED, after[: match.start()]):
            alternatives = [name for name in answers if name != label]
            label = alternatives[0] if len(alternatives) == 1 else ""
        labels.add(label)
    return labels.pop() or None if len(labels) == 1 else None


def _plain(text: str) -> str:
    """Lower case, one space between words, n't and cannot written out."""
    spaced = re.sub(r"[\s_-]+", " ", text.lower())
    return re.sub(AFFIRMED, "", re.sub(r"n['\u2019]t\b|(?<=\bcan)not\b", " not", spaced))


def _longest(words: Mapping[str, str]) -> list[str]:
    return sorted(words, key=len, reverse=True)


def _letter(plain: str, letters: str, reasoning: bool) -> str:
    """The last letter that is said to be the answer; else the first word of the text, if that may be one."""
    pattern = rf"([{letters}])(?!\w)(?<!\ba(?= \w))"
    matches = re.findall(rf"\b(?:answer|option|choice)(?: is)?[^\w]*{pattern}", plain)
    if matches:
        return str(matches[-1])
    first = None if reasoning else re.match(rf"\W*{pattern}", plain)
    return first[1] if first else ""
