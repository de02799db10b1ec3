"""The prompt study: what is asked is what the paper printed, whatever is answered is counted, broken data are named."""

import json
import random
from pathlib import Path
from typing import Any

import pytest

import configs
from evals.prompts import answers, run, tasks
from evals.prompts import items as prompt_items
from rwkv_core.errors import BadInput, Unsupported
from rwkv_core.load import load
from rwkv_core.spec import LanguageModel, ModelSpec
from tests.evals.zeroshot.test_tasks import SHAPE

RTE = {"sentence1": "A man sleeps.", "sentence2": "A man rests.", "label": 0}


def model() -> LanguageModel:
    return load(ModelSpec("small", "rwkv4", SHAPE, weights="random:0", context_length=1024))  # type: ignore[arg-type]


def folder(tmp_path: Path, rows: list[dict[str, Any]]) -> str:
    (tmp_path / "rte").mkdir(exist_ok=True)
    (tmp_path / "rte" / "validation.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return str(tmp_path)


def test_rte_is_asked_in_the_papers_words(tmp_path: Path) -> None:
    task = tasks.catalogue()["rte"]
    (item,) = prompt_items.load(task, folder(tmp_path, [RTE]))
    prompts = {name: prompt_items.prompt(task, order, item) for name, order in task.orders.items()}
    assert prompts["text first"] == (
        "Having premise A man sleeps. judge if the following hypothesis A man rests. are logically connected with the "
        'premise? Answer "entailment" if yes, or "not_entailment" if no.\nAnswer:'
    )
    assert "A man rests. is logically connected with the premise. Answer" in prompts["text first, v2's words"]
    assert prompts["question first"] == (
        "Can you tell me if the hypothesis is entailment or is not entailment to the premise?\n"
        "premise: A man sleeps.\nhypothesis: A man rests.\nAnswer:"
    )
    assert item.gold == (0,) and task.labels[0] == "entailment"


@pytest.mark.parametrize("name", tasks.catalogue())
def test_every_order_of_a_task_fills_and_is_compared(name: str) -> None:
    task = tasks.catalogue()[name]
    item = prompt_items.Item({field: f"<{field}>" for field in task.fields}, (0,))
    for order in task.orders.values():
        asked = prompt_items.prompt(task, order, item)
        held = [field for field in task.fields if field != task.gold]
        assert all(f"<{field}>" in asked for field in held) and "{" not in asked
    assert {order for pair in task.effects for order in pair} == set(task.orders)
    assert set(task.answers) == set(task.labels)
    for first, second in task.effects:
        assert first.startswith("text first") and second.startswith("question first")


ENTAILMENT = tasks.catalogue()["rte"].answers
HEALTHY = {"healthy": ["healthy"], "unhealthy": ["unhealthy"]}
LETTERS = tasks.catalogue()["mathqa"].answers


@pytest.mark.parametrize(
    ("text", "answers_of", "label"),
    [
        ("", ENTAILMENT, None),
        ("entailment", ENTAILMENT, "entailment"),
        (" Not entailment.", ENTAILMENT, "not_entailment"),
        ("NOT_ENTAILMENT", ENTAILMENT, "not_entailment"),
        ("Yes, it is entailment", ENTAILMENT, "entailment"),
        ("entailment or not_entailment", ENTAILMENT, None),
        ("yes and no", ENTAILMENT, None),
        ("I know nothing of entailments", ENTAILMENT, None),  # within words: know, nothing, entailments
        ("It is not an entailment.", ENTAILMENT, "not_entailment"),
        ("not-entailment", ENTAILMENT, "not_entailment"),
        ("It isn\u2019t entailment", ENTAILMENT, "not_entailment"),
        ("not  entailment", ENTAILMENT, "not_entailment"),
        ("\n not_entailment\npremise: Yes.", ENTAILMENT, "not_entailment"),
        (" yes\npremise: No one came.\nAnswer: no", ENTAILMENT, "entailment"),
        (" b\nThe question is: 3+4?\na ) 7\nAnswer: d", LETTERS, "b"),
        ("This cannot be healthy", HEALTHY, "unhealthy"),
        ("no doubt healthy", HEALTHY, "healthy"),
        ("It is not only healthy but fresh", HEALTHY, "healthy"),
        ("There is no entailment.", ENTAILMENT, "not_entailment"),
        ("no, it is entailment", ENTAILMENT, None),
        ("entaİlment", ENTAILMENT, None),
        ("İİİ answer: yes", ENTAILMENT, "entailment"),
        ("It is not healthy", HEALTHY, "unhealthy"),
        ("a non-sarcastic text", {"sarcastic": ["sarcastic"], "not sarcastic": ["not sarcastic"]}, "not sarcastic"),
        ("not neutral", {k: [k] for k in ("negative", "neutral", "positive")}, None),
        ("да, es folgt; sí", ENTAILMENT, None),
        ("It is entailment. Answer: no", ENTAILMENT, "not_entailment"),
        ("Answer: no. Answer: yes", ENTAILMENT, "entailment"),
        ("a train leaves at b. Answer: c", LETTERS, "c"),
        ("Answer: (D) 38", LETTERS, "d"),
        ("Answer: about 38", LETTERS, None),
        ("Answer: A total of 38", LETTERS, None),
        ("Answer: a) 38", LETTERS, "a"),
        (" a", LETTERS, "a"),
        (" A man has 5 apples", LETTERS, None),
        ("The answer is (c), I think", LETTERS, "c"),
        ("Answer: b. No, the correct option is e", LETTERS, "e"),
        ("38", LETTERS, None),
        ("b ) 27", LETTERS, "b"),
        (
            "not aggressive at all",
            {"aggressive": ["aggressive"], "not aggressive": ["not aggressive"]},
            "not aggressive",
        ),
    ],
)
def test_a_generated_text_gives_its_label_or_none(text: str, answers_of: Any, label: str | None) -> None:
    assert answers.parse(text, answers_of) == label


def test_who_reasons_has_to_say_the_answer_and_is_not_cut_short(tmp_path: Path) -> None:
    assert answers.parse(" b is less than c", LETTERS) == "b"
    assert answers.parse(" b is less than c", LETTERS, reasoning=True) is None
    assert answers.parse("b is 3.\n\nAnswer: c", LETTERS, reasoning=True) == "c"
    task = tasks.catalogue()["mathqa"]
    item = prompt_items.Item(dict.fromkeys(task.fields, "x"), (0,))
    asked = {name: prompt_items.prompt(task, order, item) for name, order in task.orders.items()}
    assert not any(text.endswith(prompt_items.END) for name, text in asked.items() if "reasoning" in name)
    assert sum(text.endswith(prompt_items.END) for text in asked.values()) == 2


@pytest.mark.parametrize("way", ["score", "generate"])
def test_a_key_is_always_right_and_both_ways_keep_every_item(
    way: Any, tmp_path: Path, tokenizer: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = random.Random(0)
    rows = [{**RTE, "sentence1": f"It was {i}.", "label": rng.randrange(2)} for i in range(12)]
    gold = {f"It was {i}.": row["label"] for i, row in enumerate(rows)}
    task = tasks.catalogue()["rte"]

    def right(prompt: str) -> str:
        (label,) = [label for text, label in gold.items() if text in prompt]
        return task.labels[label]

    from evals.ask.asker import Asker

    def score(self: Any, requests: Any) -> list[tuple[float, bool]]:
        return [(float(word.strip() == right(prompt)) - 2, False) for prompt, word in requests]

    monkeypatch.setattr(Asker, "score", score)
    monkeypatch.setattr(Asker, "generate", lambda self, asked: [f"It is {right(prompt)}." for prompt, _ in asked])
    asked = {"device": "cpu", "task": "rte", "order": "question first", "data": folder(tmp_path, rows)}
    metrics, samples = run.run(model(), way=way, tokenizer=str(tokenizer), **asked)  # type: ignore[arg-type]
    assert metrics["docs"] == 12 and metrics["unparsed"] == 0
    assert all(item["gold"] == [item["answer"]] for item in samples["items"])


RAVEN = (
    "\nBelow is an instruction that describes a task. Write a response that appropriately completes the request.\n\n"
    "# Instruction:\nCan you tell me if the hypothesis is entailment or is not entailment to the premise?\n"
    "premise: A man\nsleeps.\nhypothesis: A man rests.\n\n# Response:\n"
)
WORLD = (
    "User: Can you tell me if the hypothesis is entailment or is not entailment to the premise?\n"
    "premise: A man\nsleeps.\nhypothesis: A man rests.\n\nAssistant:"
)


@pytest.mark.parametrize(
    ("family", "prompt", "word"),
    [("rwkv4-raven", RAVEN, "yes"), ("rwkv4-world", WORLD, " yes"), ("rwkv7", WORLD, " yes")],
)
def test_a_model_tuned_to_chat_is_given_its_form_to_the_letter(
    family: str, prompt: str, word: str, tmp_path: Path, tokenizer: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from evals.ask.asker import Asker

    given: list[Any] = []
    stops: list[str] = []

    def score(self: Any, requests: Any) -> list[tuple[float, bool]]:
        given.extend(requests)
        return [(-1.0, False)] * len(requests)

    def generate(self: Any, requests: Any) -> list[str]:
        given.append(requests[0][0])
        stops.extend(requests[0][1]["until"])
        return ["yes"]

    monkeypatch.setattr(Asker, "score", score)
    monkeypatch.setattr(Asker, "generate", generate)
    tuned = load(ModelSpec("small", family, SHAPE, weights="random:0", context_length=1024))
    data = folder(tmp_path, [{**RTE, "sentence1": "A man\n\n \n\nsleeps."}])
    asked = {"device": "cpu", "task": "rte", "order": "question first", "data": data, "tokenizer": str(tokenizer)}
    run.run(tuned, **asked, form="chat")  # type: ignore[arg-type]
    assert (prompt, word) in given and {text for text, _ in given} == {prompt}
    run.run(tuned, **asked, form="chat", way="generate")  # type: ignore[arg-type]
    assert given[-1] == prompt and stops[0] == ("\n\n# Instruction:" if family == "rwkv4-raven" else "\n\nUser:")
    with pytest.raises(Unsupported, match="small was not tuned to chat"):
        run.run(model(), **asked, form="chat")  # type: ignore[arg-type]


def test_the_forms_of_chats_are_of_known_families_and_part_of_what_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    forms = configs.read("chats")
    taught = [family for form in forms.values() for family in form["families"]]
    assert len(taught) == len({*taught}) and {*taught} <= set(configs.read("families"))
    plain, chat = ({"task": "rte", "order": "question first", "form": form} for form in ("plain", "chat"))
    before = run.definition(plain), run.definition(chat)
    assert before[0] == run.definition({"task": "rte", "order": "question first"}), "records before chats had no form"
    monkeypatch.setitem(forms["world"], "template", "Q: {prompt} A:")
    assert run.definition(plain) == before[0] and run.definition(chat) != before[0]


def test_what_cannot_be_read_is_kept_and_counted(
    tmp_path: Path, tokenizer: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from evals.ask.asker import Asker

    monkeypatch.setattr(Asker, "generate", lambda self, rs: ["", "yes and no", "entailment"])
    found = {"device": "cpu", "task": "rte", "order": "text first", "data": folder(tmp_path, [RTE] * 3)}
    metrics, samples = run.run(model(), way="generate", tokenizer=str(tokenizer), **found)  # type: ignore[arg-type]
    assert metrics["unparsed"] == 2 and [item["answer"] for item in samples["items"]] == [None, None, 0]


def test_a_window_without_room_for_the_answer_is_a_finding(tmp_path: Path, tokenizer: Path) -> None:
    own = load(ModelSpec("small", "rwkv4", SHAPE, weights="random:0", context_length=16))
    asked = {"device": "cpu", "task": "rte", "order": "text first", "data": folder(tmp_path, [RTE])}
    with pytest.raises(Unsupported, match="no room for 16 new tokens"):
        run.run(own, way="generate", tokenizer=str(tokenizer), **asked)  # type: ignore[arg-type]


def test_both_ways_run_with_a_model(tmp_path: Path, tokenizer: Path) -> None:
    asked = {"device": "cpu", "task": "rte", "order": "text first", "data": folder(tmp_path, [RTE] * 3)}
    metrics, samples = run.run(model(), way="generate", tokenizer=str(tokenizer), docs=2, **asked)  # type: ignore[arg-type]
    assert metrics["docs"] == len(samples["items"]) == 2
    assert all("text" in item for item in samples["items"])
    _, samples = run.run(model(), way="score", tokenizer=str(tokenizer), docs=2, **asked)  # type: ignore[arg-type]
    assert all(len(item["loglikelihoods"]) == 2 for item in samples["items"])


def test_every_file_that_is_read_names_the_cell(tmp_path: Path) -> None:
    own = tmp_path / "tweet_eval_sentiment"
    own.mkdir()
    for name in ("test_text.txt", "test_labels.txt", "mapping.txt"):
        (own / name).write_text("0\n")
    before, _ = run.identify_data(str(tmp_path), {"task": "tweetsent"})
    (own / "test_labels.txt").write_text("1\n")
    assert run.identify_data(str(tmp_path), {"task": "tweetsent"})[0] != before
    assert run.identify_data("pocket", {"task": "rte"})[0] == "pocket:nothing"


def test_reasoning_cannot_be_scored(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="write `way: generate`"):
        run.run(model(), device="cpu", task="mathqa", order="question first, with reasoning", data=str(tmp_path))
    with pytest.raises(BadInput, match="did you mean"):
        run.run(model(), device="cpu", task="rte", order="question frist", data=str(tmp_path))


def test_a_task_without_data_says_what_is_missing(tmp_path: Path) -> None:
    for name in ("polemo2", "goemotions"):
        with pytest.raises(Unsupported, match="below the data folder"):
            prompt_items.load(tasks.catalogue()[name], str(tmp_path))
    with pytest.raises(Unsupported, match="not on the hub"):
        prompt_items.load(tasks.catalogue()["sarcasm"], "hub")


def test_the_hub_is_asked_for_data_that_need_no_script(monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    called: list[dict[str, str]] = []

    def load_dataset(**options: str) -> datasets.Dataset:
        called.append(options)
        row = {"Problem": "1 + 1", "options": "a ) 2 , b ) 3", "correct": "a", "Rationale": "", "category": ""}
        return datasets.Dataset.from_list([row] * 3)

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    for data in ("hub", f"hub:{'a' * 40}"):
        found = prompt_items.load(tasks.catalogue()["mathqa"], data, 2)
        assert [item.gold for item in found] == [(0,), (0,)]
    asked = {"path": "regisss/math_qa", "split": "test"}
    assert called == [{**asked, "revision": "main"}, {**asked, "revision": "a" * 40}]


def test_goemotions_as_released_several_labels_and_what_is_broken(tmp_path: Path) -> None:
    task = tasks.catalogue()["goemotions"]
    own = tmp_path / "goemotions"
    own.mkdir()
    (own / "labels.txt").write_text("\n".join(task.labels) + "\n")
    (own / "test.tsv").write_text("So sad\t25\tid1\nBoth “now”\t0,27\tid2\n")
    first, second = prompt_items.load(task, str(tmp_path))
    assert first.gold == (25,) and second.gold == (0, 27) and second.values["text"] == "Both “now”"
    (own / "test.tsv").write_text("So sad\t25\tid1\nno number\tx\tid\n")
    with pytest.raises(BadInput, match="line 2"):
        prompt_items.load(task, str(tmp_path))
    (own / "test.tsv").write_text("So sad\t28\tid1\n")
    with pytest.raises(BadInput, match="item 1: labels is 28"):
        prompt_items.load(task, str(tmp_path))
    (own / "labels.txt").write_text("joy\n")
    with pytest.raises(BadInput, match="names joy"):
        prompt_items.load(task, str(tmp_path))


def test_tweets_as_released_and_what_is_broken(tmp_path: Path) -> None:
    task = tasks.catalogue()["tweetsent"]
    own = tmp_path / "tweet_eval_sentiment"
    own.mkdir()
    (own / "mapping.txt").write_text("0\tnegative\n1\tneutral\n2\tpositive\n")
    (own / "test_text.txt").write_text("bad {day} \ngood\u2028day \n")
    (own / "test_labels.txt").write_text("0\n2\n")
    first, second = prompt_items.load(task, str(tmp_path))
    assert (first.values["text"], first.gold, second.gold) == ("bad {day}", (0,), (2,))
    assert "bad {day}" in prompt_items.prompt(task, task.orders["text first"], first)
    (own / "test_labels.txt").write_text("0\n")
    with pytest.raises(BadInput, match="2 lines, and 1 in test_labels"):
        prompt_items.load(task, str(tmp_path))


@pytest.mark.parametrize("name", ["rte", "wnli", "mathqa", "goemotions", "tweetsent"])
def test_real_items_are_read(name: str) -> None:
    shared = Path(__file__).resolve().parents[4] / "shared" / "data"
    task = tasks.catalogue()[name]
    found = [data for data in (shared / "zero_shot", shared / "prompts") if (data / task.file).is_file()]
    if not found:
        pytest.skip("no real items on this machine")
    items = prompt_items.load(task, str(found[0]))
    assert len(items) > 60
    assert {number for item in items for number in item.gold} == set(range(len(task.labels)))


@pytest.mark.parametrize("way", ["score", "generate"])
def test_an_item_that_lost_its_beginning_is_marked_and_the_same_question_is_one(
    way: str, tmp_path: Path, tokenizer: Path
) -> None:
    long = {**RTE, "sentence1": "It rains in the garden. " * 300}
    found = folder(tmp_path, [RTE, long, RTE])
    asked = {"device": "cpu", "task": "rte", "order": "question first", "data": found, "tokenizer": str(tokenizer)}
    metrics, samples = run.run(model(), way=way, **asked)  # type: ignore[arg-type]
    assert [item["cut"] for item in samples["items"]] == [False, True, False] and metrics["cut"] == 1
    assert metrics["truncated"] == (1 if way == "generate" else 5)  # requests: one, or one for each wording
    assert [item["question"] for item in samples["items"]] == [0, 1, 0]


def test_the_pocket_worlds_questions_are_its_own() -> None:
    found = prompt_items.load(tasks.catalogue()["pocket"], str(run._folder("pocket")))
    asked = run._questions("pocket", tasks.catalogue()["pocket"], found)
    assert len(asked) == len(found) == 400 and len(set(asked)) == 359
