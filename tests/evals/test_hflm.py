"""Answers against lm-eval's own HFLM on small data; `make zeroshot-check` does it on real ones."""

from pathlib import Path

import pytest

from tests import zeroshot_check


@pytest.mark.parametrize("name", zeroshot_check.SMALL)
def test_answers_are_those_of_lm_eval(name: str, data: str, tokenizer: Path) -> None:
    models = [zeroshot_check.small(name)]
    chosen = ["hellaswag", "record", "winogrande", "lambada_openai", "boolq"]
    found = list(zeroshot_check.lines(models, chosen, data, tokenizer, docs=3, batches=[1]))
    assert [line.task for line in found] == chosen
    for line in found:
        assert line.right, str(line)
