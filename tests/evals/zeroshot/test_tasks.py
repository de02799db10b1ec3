"""Tasks: the exact strings and tokens of both protocols, the scoring itself, and what is wrong with data."""

import dataclasses
import json
import math
import random
import re
from pathlib import Path
from typing import Any

import pytest
from lm_eval import utils as lm_eval_utils
from lm_eval.api.model import LM

from evals.ask.asker import Asker
from evals.ask.score import Scorer
from evals.zeroshot import tasks
from evals.zeroshot.lm_eval import AskedModel
from evals.zeroshot.run import evaluate, run
from rwkv_core.errors import BadInput
from rwkv_core.load import load
from rwkv_core.spec import LanguageModel, ModelSpec
from rwkv_core.text import Codec, read
from tests.evals import world

SHAPE = {"model_type": "rwkv", "vocab_size": 400, "hidden_size": 16, "num_hidden_layers": 1}
MANY = 150  # items; lm-eval compiles its templates for each anew
CHOICE_TASKS = [name for name in tasks.catalogue() if name not in ("lambada_openai", "triviaqa")]


def model(**changes: Any) -> LanguageModel:
    return load(ModelSpec("small", "rwkv4", SHAPE, weights="random:0", **changes))


def asker(tokenizer: Path, protocol: str, window: int = 1024) -> Asker:
    return Asker(Scorer(model(context_length=window), "cpu"), Codec.of(read(tokenizer)), protocol)  # type: ignore[arg-type]


class Scripted(LM):
    """Answers from a function of (document, context, continuation, which choice)."""

    def __init__(self, answer: Any) -> None:
        super().__init__()
        self.answer = answer

    def loglikelihood(self, requests: Any, disable_tqdm: bool = False) -> Any:
        return [self.answer(r.doc, *r.args, r.idx) for r in requests]

    def loglikelihood_rolling(self, requests: Any, disable_tqdm: bool = False) -> Any:
        raise AssertionError

    def generate_until(self, requests: Any, disable_tqdm: bool = False) -> Any:
        return [self.answer(r.doc, *r.args, r.idx) for r in requests]


def is_right(task: Any, doc: Any, continuation: str, choice: int) -> bool:
    if task.task_name == "record":
        return doc["entities"][choice] in doc["answers"]
    gold = task.doc_to_text(doc) if task.multiple_input else task.doc_to_target(doc)
    return choice == (task.doc_to_choice(doc).index(gold) if isinstance(gold, str) else gold)


@pytest.mark.parametrize("protocol", ["v0.4", "v0.3"])
@pytest.mark.parametrize("name", CHOICE_TASKS)
def test_an_answer_key_is_right_and_its_opposite_wrong(name: str, protocol: Any, data: str) -> None:
    task = tasks.load(name, data, protocol)
    metric = tasks.entry(name)["metric"]

    def key(doc: Any, context: str, continuation: str, choice: int) -> tuple[float, bool]:
        return (0.0, True) if is_right(task, doc, continuation, choice) else (-1e6, False)

    def opposite(doc: Any, context: str, continuation: str, choice: int) -> tuple[float, bool]:
        return (-1e6, False) if is_right(task, doc, continuation, choice) else (-1.0, False)

    metrics, items = evaluate(task, Scripted(key))
    assert metrics["docs"] == len(items) == world.ITEMS
    assert all(metrics[found] == 1.0 for found in task.aggregation())
    metrics, _ = evaluate(task, Scripted(opposite))
    assert metrics[metric] == 0.0


def test_an_answer_key_of_lambada_and_triviaqa(data: str) -> None:
    metrics, _ = evaluate(tasks.load("lambada_openai", data, "v0.4"), Scripted(lambda *_: (0.0, True)))
    assert (metrics["acc"], metrics["perplexity"]) == (1.0, 1.0)
    metrics, items = evaluate(
        tasks.load("triviaqa", data, "v0.4"), Scripted(lambda doc, *_: f" {doc['answer']['aliases'][1].upper()}")
    )
    assert metrics["exact_match"] == 1.0 and items[0]["text"].isupper()


@pytest.mark.parametrize("name", CHOICE_TASKS)
def test_a_model_that_guesses_scores_chance(name: str, tmp_path: Path) -> None:
    task = tasks.load(name, str(world.write(tmp_path / "many", items=MANY)), "v0.4")
    metric = tasks.entry(name)["metric"]
    rng = random.Random(0)
    metrics, items = evaluate(task, Scripted(lambda *_: (rng.random() - 1e6, False)))  # lengths do not matter
    chance = metrics[f"{metric}_chance"]
    assert 0.1 < chance < 0.6
    assert abs(metrics[metric] - chance) < 4 * math.sqrt(chance * (1 - chance) / MANY)
    apart = max(item["question"] for item in items) == MANY - 1  # else some of these short items are alike
    binomial = math.sqrt(metrics[metric] * (1 - metrics[metric]) / (MANY - 1))
    assert metrics[f"{metric}_stderr"] == pytest.approx(binomial, rel=1e-6 if apart else 0.3)


def test_a_uniform_model_of_lambada_has_the_vocabulary_as_perplexity(data: str, tokenizer: Path) -> None:
    lm = asker(tokenizer, "v0.4")
    for _, p in lm.scorer.model.named_parameters():
        p.requires_grad_(False)
        if p.dim() == 2:
            p.zero_()
    metrics, items = evaluate(tasks.load("lambada_openai", data, "v0.4"), AskedModel(lm))
    tokens = [-item["loglikelihoods"][0] / math.log(400) for item in items]
    assert tokens == pytest.approx([round(n) for n in tokens], abs=1e-3)
    assert metrics["perplexity"] == pytest.approx(400 ** (sum(tokens) / len(tokens)), rel=1e-4)


def test_a_perplexity_beyond_all_numbers_is_infinite_and_so_no_result(data: str) -> None:
    metrics, _ = evaluate(tasks.load("lambada_openai", data, "v0.4"), Scripted(lambda *_: (-1e4, False)))
    assert metrics["perplexity"] == math.inf and metrics["acc"] == 0.0


def test_the_error_of_a_perplexity_is_by_the_delta_method(data: str) -> None:
    rng = random.Random(0)
    task = tasks.load("lambada_openai", data, "v0.4")
    metrics, items = evaluate(task, Scripted(lambda *_: (-3 * rng.random(), False)))
    values = [item["loglikelihoods"][0] for item in items]
    mean = sum(values) / len(values)
    spread = math.sqrt(sum((value - mean) ** 2 for value in values) / (len(values) - 1) / len(values))
    assert metrics["perplexity"] == pytest.approx(math.exp(-mean), rel=1e-4)
    assert metrics["perplexity_stderr"] == pytest.approx(math.exp(-mean) * spread, rel=1e-4)


def test_items_of_one_question_count_as_one(tmp_path: Path) -> None:
    """Ten copies of each item are no more certain than the items: the error is that of the few."""
    answer = random.Random(0)
    right = [answer.random() < 0.5 for _ in range(12)]
    errors = []
    for copies in (1, 10):
        folder = tmp_path / f"{copies}" / "copa"
        folder.mkdir(parents=True)
        lines = [
            json.dumps(
                {"premise": f"It was {i}.", "choice1": "yes.", "choice2": f"no {n}.", "question": "effect", "label": 0}
            )
            for i in range(12)
            for n in range(copies)
        ]
        (folder / "validation.jsonl").write_text("\n".join(lines))
        task = tasks.load("copa", str(folder.parent), "v0.4")
        metrics, items = evaluate(
            task, Scripted(lambda doc, _, __, i: (float(right[int(doc["premise"][7:-1])] == (i == 0)), False))
        )
        assert metrics["questions"] == 12 and metrics["docs"] == 12 * copies
        assert metrics["acc"] == sum(right) / 12 and {item["question"] for item in items} == set(range(12))
        errors.append(metrics["acc_stderr"])
    assert errors[1] == pytest.approx(errors[0])


def test_a_folder_may_say_which_items_ask_the_same(tmp_path: Path, tokenizer: Path) -> None:
    data = world.write(tmp_path / "data")
    asked = {"device": "cpu", "task": "copa", "data": str(data), "tokenizer": str(tokenizer)}
    path = data / "copa" / tasks.QUESTIONS
    path.write_text(json.dumps([str(i // 4) for i in range(world.ITEMS)]))
    metrics, samples = run(model(), **asked)  # type: ignore[arg-type]
    assert metrics["questions"] == world.ITEMS // 4
    assert [item["question"] for item in samples["items"]] == [i // 4 for i in range(world.ITEMS)]
    for broken in ("[", '["0"]', str(list(range(world.ITEMS)))):
        path.write_text(broken)
        with pytest.raises(BadInput, match=r"questions\.json"):
            run(model(), **asked)  # type: ignore[arg-type]


def test_the_named_floor_is_a_guess_among_the_choices_that_the_context_names(tmp_path: Path) -> None:
    supports = ["Salt and chalk, never chalky iron.", "Only SALT.", "Salty water."]
    row = {
        "question": "What?",
        "correct_answer": "salt",
        "distractor1": "chalk",
        "distractor2": "tin",
        "distractor3": "lead",
    }
    (tmp_path / "sciq").mkdir()
    lines = [json.dumps({"support": support, **row}) for support in supports]
    (tmp_path / "sciq" / "test.jsonl").write_text("\n".join(lines))
    metrics, _ = evaluate(tasks.load("sciq", str(tmp_path), "v0.4"), Scripted(lambda *_: (0.0, False)))
    assert metrics["acc_named"] == pytest.approx((1 / 2 + 1 + 1 / 4) / 3)
    assert metrics["acc_chance"] == 0.25


EXPECTED = {  # (task, protocol): context and first continuation of the item below
    ("copa", "v0.4"): ("It rained because", "  the pipe broke."),
    ("copa", "v0.3"): ("It rained because", " the pipe broke."),
    ("record", "v0.4"): ("Text.\n\n  - Point.\n", "   - It was Ann."),
    ("record", "v0.3"): ("Text.\n\n  - Point.\n", "  - It was Ann."),
    ("winogrande", "v0.4"): ("The cup was by Ann", " at night."),
    ("winogrande", "v0.3"): ("The cup was by Ann", " at night."),
    ("sciq", "v0.4"): ("S.\nQuestion: Q\nAnswer:", " one"),
    ("sciq", "v0.3"): ("S.\nQuestion: Q\nAnswer:", " one"),
}
ITEMS: dict[str, dict[str, Any]] = {
    "copa": {
        "premise": "It rained.",
        "choice1": "The pipe broke.",
        "choice2": "No.",
        "question": "cause",
        "label": 0,
    },
    "record": {
        "passage": "Text.\n@highlight\nPoint",
        "query": "It was @placeholder.",
        "entities": ["Bob", "Ann"],
        "answers": ["Ann"],
    },
    "winogrande": {"sentence": "The cup was by _ at night.", "option1": "Ann", "option2": "Bob", "answer": "1"},
    "sciq": {
        "question": "Q",
        "support": "S.",
        "distractor1": "one",
        "distractor2": "two",
        "distractor3": "three",
        "correct_answer": "four",
    },
}


@pytest.mark.parametrize(("name", "protocol"), EXPECTED)
def test_the_exact_strings_and_tokens(name: str, protocol: Any, tmp_path: Path, tokenizer: Path) -> None:
    (tmp_path / name).mkdir()
    (tmp_path / name / f"{tasks.entry(name)['split']}.jsonl").write_text(json.dumps(ITEMS[name]) + "\n")
    task = tasks.load(name, str(tmp_path), protocol)
    sent: list[tuple[str, str]] = []

    def note(doc: Any, context: str, continuation: str, choice: int) -> tuple[float, bool]:
        sent.append((context, continuation))
        return 0.0, False

    evaluate(task, Scripted(note))
    assert sent[0] == EXPECTED[name, protocol]
    found = read(tokenizer)
    context, continuation = asker(tokenizer, protocol).pair(*sent[0])
    if protocol == "v0.3":  # apart, and RWKV's prompt begins with a newline
        assert context == found.encode("\n" + sent[0][0]).ids[:1] + found.encode(sent[0][0]).ids
        assert continuation == found.encode(sent[0][1]).ids
    else:  # together, the context's last whitespace with the continuation
        stripped = sent[0][0].rstrip()
        assert context == found.encode(stripped).ids
        assert context + continuation == found.encode(sent[0][0] + sent[0][1]).ids


def test_a_template_is_compiled_once_whatever_the_number_of_items(monkeypatch: pytest.MonkeyPatch) -> None:
    tasks.load("piqa", "pocket", "v0.4")
    lm_eval_utils.env.from_string.cache_clear()  # type: ignore[attr-defined]
    compiled: list[str] = []
    compile_template = lm_eval_utils.env.compile
    monkeypatch.setattr(
        lm_eval_utils.env, "compile", lambda source, *args: compiled.append(source) or compile_template(source, *args)
    )
    loaded = tasks.load("piqa", "pocket", "v0.4")
    texts = [loaded.doc_to_text(doc) for doc in tasks.items(loaded, 5)]
    assert len(set(texts)) == 5 and compiled and len(compiled) == len(set(compiled))


def test_only_rwkv_has_the_authors_newline(tokenizer: Path) -> None:
    own = asker(tokenizer, "v0.3")
    assert own.prefix == read(tokenizer).encode("\n").ids and asker(tokenizer, "v0.4").prefix == []
    own.scorer.model.spec = ModelSpec("other", "pythia", SHAPE)
    assert Asker(own.scorer, own.codec, "v0.3").prefix == []


def test_a_long_context_is_cut_from_the_left_and_counted(tokenizer: Path, data: str) -> None:
    lm = asker(tokenizer, "v0.4", window=12)
    request = lm._request(list(range(30)), [7, 8])
    assert request.tokens.tolist() == [*range(19, 30), 7, 8] and len(request.fed) == 12
    assert lm.counts == {"requests": 1, "truncated": 1}
    with pytest.raises(BadInput, match="window of 12"):
        lm._request([1], [0] * 13)
    metrics, _ = run(lm.scorer.model, device="cpu", task="boolq", data=data, tokenizer=str(tokenizer))
    assert metrics["truncated"] == metrics["requests"] == 2 * world.ITEMS


@pytest.mark.parametrize("docs", [0, 5])
def test_a_run_says_what_was_scored(data: str, tokenizer: Path, docs: int) -> None:
    found = run(model(), device="cpu", task="arc_easy", data=data, tokenizer=str(tokenizer), docs=docs)
    metrics, samples = found
    assert metrics["docs"] == len(samples["items"]) == (docs or world.ITEMS)
    assert metrics["data_source"] == "local" and len(metrics["data_fingerprint"]) == 16
    assert {"acc", "acc_stderr", "acc_chance", "acc_norm", "tokens_read", "parameters"} <= metrics.keys()
    assert len(samples["items"][0]["loglikelihoods"]) == 4
    apart, _ = run(model(), device="cpu", task="arc_easy", data=data, tokenizer=str(tokenizer), docs=docs, share=False)
    assert apart["tokens_read"] > metrics["tokens_read"] and apart["acc"] == metrics["acc"]


GOOD = {"question": "Q", "choices": {"text": ["a", "b"], "label": ["A", "B"]}, "answerKey": "B"}
BAD = {
    "broken": ('{"question": "Q"', r"test.jsonl, line 2: broken JSON"),
    "field": (json.dumps({"question": "Q", "answerKey": "A"}), r"line 2: the field 'choices' is missing"),
    "choices": (
        json.dumps({**GOOD, "id": "x7", "choices": {"text": [], "label": []}}),
        r"line 2 \(item x7\): 'choices' is empty",
    ),
    "answer": (json.dumps({**GOOD, "answerKey": ""}), r"line 2: no answer \('answerKey' is ''\)"),
    "outside": (json.dumps({**GOOD, "answerKey": "Z"}), r"item 2: cannot be used"),
    "surrogate": (json.dumps({**GOOD, "question": "\ud83d?"}), r"line 2: '\\ud83d' is half of a surrogate pair"),
    "list": ("[1, 2]", r"line 2: a JSON object is needed, not list"),
}


@pytest.mark.parametrize("fault", BAD)
def test_a_bad_item_is_named(fault: str, tmp_path: Path) -> None:
    line, message = BAD[fault]
    (tmp_path / "arc_easy").mkdir()
    (tmp_path / "arc_easy" / "test.jsonl").write_text(f"{json.dumps(GOOD)}\n{line}\n")
    with pytest.raises(BadInput, match=message):
        tasks.load("arc_easy", str(tmp_path), "v0.4")


def test_missing_data_are_named(tmp_path: Path) -> None:
    (tmp_path / "arc_easy").mkdir()
    (tmp_path / "arc_easy" / "validation.jsonl").write_text("")
    with pytest.raises(BadInput, match=r"test.jsonl: this split .* missing; the folder holds validation.jsonl"):
        tasks.load("arc_easy", str(tmp_path), "v0.4")
    (tmp_path / "arc_easy" / "test.jsonl").write_text("\n")
    with pytest.raises(BadInput, match="no items"):
        tasks.load("arc_easy", str(tmp_path), "v0.4")


def test_a_hub_that_cannot_be_reached_is_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", str(tmp_path / "cache"))
    with pytest.raises(BadInput, match="neither cached nor to be had from the hub") as raised:
        tasks.load("sciq", "hub", "v0.4")
    assert "\n" not in str(raised.value) and "--data-dir" in str(raised.value)


@pytest.mark.parametrize("name", tasks.catalogue())
def test_the_hubs_data_set_is_lm_evals_at_the_revision_that_was_planned(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import datasets

    def load_dataset(**options: str) -> None:
        raise RuntimeError(json.dumps(options))

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    revision = "a" * 40
    with pytest.raises(BadInput) as raised:
        tasks.load(name, f"hub:{revision}", "v0.4")
    called = json.loads(re.findall("{.*}", str(raised.value))[0])
    assert (called["path"], called["revision"]) == (tasks.entry(name)["hub"], revision)


def test_a_tokenizer_that_lacks_a_character_or_has_too_many_tokens(tokenizer: Path) -> None:
    codec = asker(tokenizer, "v0.4").codec
    codec.check(["The river — été"])
    lacking = dataclasses.replace(codec, encode=lambda text: [] if text == "é" else codec.encode(text))
    with pytest.raises(BadInput, match=r"nothing for the character 'é' \(U\+00E9\)"):
        lacking.check(["The river — été"])
    whole = codec.encode("The river near the harbour")
    assert codec.within(max(whole) + 1).encode("The river near the harbour") == whole
    with pytest.raises(BadInput, match=f"vocabulary ends at {max(whole) - 1}; is it this model's tokenizer"):
        codec.within(max(whole)).encode("The river near the harbour")  # of which no single letter is too much


def test_unknown_tasks_have_near_ones() -> None:
    with pytest.raises(BadInput, match="did you mean hellaswag"):
        tasks.entry("helaswag")


@pytest.mark.parametrize("name", ["boolq", "rte", "wnli"])
def test_the_best_fixed_answer_is_what_a_stubborn_model_scores(name: str, data: str) -> None:
    task = tasks.load(name, data, "v0.4")
    scores = []
    for stubborn in range(2):
        answer = Scripted(lambda doc, before, after, choice: (-1.0 if choice == stubborn else -1e6, False))  # noqa: B023
        metrics, _ = evaluate(task, answer)
        scores.append(metrics["acc"])
    assert metrics["acc_fixed"] == max(scores) > 0.5 == metrics["acc_chance"]


def test_answers_that_do_not_recur_have_no_high_floor_and_winogrande_none(data: str) -> None:
    stubborn = Scripted(lambda doc, before, after, choice: (-float(choice), False))
    metrics, _ = evaluate(tasks.load("sciq", data, "v0.4"), stubborn)  # its right answer is always the fourth
    assert metrics["acc_fixed"] < 0.6
    metrics, _ = evaluate(tasks.load("winogrande", data, "v0.4"), stubborn)
    assert "acc_fixed" not in metrics
