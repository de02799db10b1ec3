"""Answers against lm-eval's own HFLM on small data; `make zeroshot-check` does it on real ones."""

from pathlib import Path

import pytest

from tests import families
from tests.checks import zeroshot as zeroshot_check


@pytest.mark.parametrize("name", zeroshot_check.SMALL)
def test_answers_are_those_of_lm_eval(name: str, data: str, tokenizer: Path) -> None:
    models = [zeroshot_check.small(name)]
    chosen = ["hellaswag", "record", "winogrande", "lambada_openai", "boolq"]
    found = list(zeroshot_check.lines(models, chosen, data, tokenizer, docs=3, batches=[1]))
    assert [line.task for line in found] == chosen
    for line in found:
        assert line.right, str(line)


@pytest.mark.parametrize("name", families.SHAPES)
def test_each_familys_own_tokenizer_is_used_as_lm_eval_uses_it(name: str, data: str, tmp_path: Path) -> None:
    chosen = ["hellaswag", "record", "lambada_openai"]
    models = [families.folder(name, tmp_path)]
    found = list(zeroshot_check.lines(models, chosen, data, None, docs=3, batches=[1]))
    assert [line.task for line in found] == [zeroshot_check.TEXTS, *chosen]
    for line in found:
        assert line.right, str(line)
