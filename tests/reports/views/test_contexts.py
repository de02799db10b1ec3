"""A few tokens after prompts of several lengths make a section of their own, and no section for each prompt."""

from dataclasses import replace

from reports.records.record import Record
from reports.views import contexts, inference
from reports.views.table import read
from tests.make import altered
from tests.reports.test_page import record

PROMPTS = (1024, 16, 4096)


def after(prompt: int, name: str = "pythia-160m", **changes: float) -> Record:
    made = altered(record(name, tokens=16, **changes), prompt_tokens=prompt)  # type: ignore[arg-type]
    end = max(made.samples["memory"], key=lambda point: point["context_tokens"])
    end["peak_live_bytes"] = prompt << 20
    return made


def test_points_are_those_of_each_prompt() -> None:
    measured = [after(prompt, step=prompt * 1e-5) for prompt in PROMPTS]
    measured += [after(prompt, "rwkv4-169m", step=0.01) for prompt in PROMPTS]
    (view,) = contexts.views(read(measured))
    latency, first, memory = view.pictures
    curves = {series.label: series for series in latency.panels[0].series}
    pythia, ours = curves["Pythia 160M"], curves["RWKV-4 169M"]
    assert list(pythia.x) == list(ours.x) == sorted(PROMPTS), "in the order of the prompts"
    # repeats of 1, 1.5 and 1.1 times a step
    assert [round(y, 4) for y in pythia.y] == [0.176, 11.264, 45.056] and [round(y, 4) for y in ours.y] == [11.0] * 3
    assert pythia.low is not None and round(pythia.low[0], 4) == 0.16
    assert list(memory.panels[0].series[0].y) == sorted(PROMPTS), "MiB at the end, not on the way"
    table = view.tables[0].frame.set_index(["model", "prompt"])
    assert table["ms a token"]["Pythia 160M", 4096] == "45.06 (40.96-61.44)" and len(table) == 6
    assert first.name == "contexts-first" and not list(inference.views(read(measured)))


def test_fewer_prompts_or_more_tokens_are_no_such_section() -> None:
    two = [after(prompt) for prompt in PROMPTS[:2]]
    assert not list(contexts.views(read(two))) and len(list(inference.views(read(two)))) == 2
    long = [altered(after(prompt), new_tokens=64) for prompt in PROMPTS]
    assert not list(contexts.views(read(long))) and len(list(inference.views(read(long)))) == 3


def test_a_disturbed_prompt_is_marked_and_goes_behind_an_undisturbed_one() -> None:
    measured = [after(prompt, step=0.01) for prompt in PROMPTS]
    for prompt, step in ((16, 0.5), (1024, 0.5)):
        again = altered(after(prompt, step=step), repeats=9)
        measured.append(replace(again, status="disturbed", error="others used 1.3 of its 2 cores"))
    del measured[PROMPTS.index(1024)]
    (view,) = contexts.views(read(measured))
    latency, _, memory = (picture.panels[0].series[0] for picture in view.pictures)
    assert [round(y) for y in latency.y] == [11, 550, 11] and latency.crossed == [False, True, False]
    assert not any(memory.crossed) and "†" in view.tables[0].note
    shown = view.tables[0].frame.set_index("prompt")["ms a token"]
    assert [text.endswith("†") for text in shown] == [False, True, False]
