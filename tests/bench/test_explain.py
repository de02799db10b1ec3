"""Every parameter of every experiment is explained, from its signature and its docstring alone."""

import pytest

from bench import cli, explain
from bench.experiments import EXPERIMENTS
from bench.speed import inference
from rwkv_core.errors import BadInput


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_each_parameter_has_its_line_and_no_line_is_of_another(name: str) -> None:
    summary, lines, rest = explain._documented(name)
    assert summary.endswith(".") and rest.startswith("Returns")
    assert list(lines) == list(EXPERIMENTS[name].defaults)
    assert all(line.endswith(".") for line in lines.values())
    assert max(map(len, explain.experiment(name))) <= explain.WIDTH


def test_types_bounds_and_defaults() -> None:
    text = "\n".join(explain.experiment("inference"))
    assert text.startswith("Generate greedily after a random prompt")
    assert "protocol: fair or paper; default 'fair'\n    fair: every family carries its cache or state." in text
    assert "repeats: int of at least 3; default 3\n    timed runs;" in text
    assert f"Timed: each cell alone in a fresh process. Version {inference.VERSION}." in text
    text = " ".join(explain.experiment("lra"))
    assert "task: one of listops, text, " in text and "protocol: str; needed" in text
    assert (
        "It needs no model." in text
        and "It needs no weights" in " ".join(explain.experiment("kernels"))
        and "Named by their content: data, work." in text
    )


def test_on_the_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    cli.explain()
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines if not line.startswith(" ")] == list(EXPERIMENTS)
    with pytest.raises(BadInput, match="did you mean zeroshot"):
        cli.explain("zershot")
