"""Task data and a tokenizer, made once."""

from pathlib import Path

import pytest

from tests.evals import world


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(world.write(tmp_path_factory.mktemp("tasks")))


@pytest.fixture(scope="session")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return world.tokenizer(tmp_path_factory.mktemp("tokenizer") / "tokenizer.json")
