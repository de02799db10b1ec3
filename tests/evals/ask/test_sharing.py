"""What is shared: decided by counting tokens, and never at a loss."""

import itertools

import numpy as np
import pytest

from evals.ask.sharing import Group, Request, batches, even_cuts, fitting, groups, leaves


def request(tokens: str, scored: int = 1) -> Request:
    return Request(np.array([ord(c) for c in tokens], dtype=np.int32), scored)


def texts(found: list) -> list[tuple[int, list[str]]]:
    return sorted((group.prefix, sorted("".join(map(chr, leaf.fed)) for leaf in group.leaves)) for group in found)


def test_an_input_that_begins_another_is_not_read_again() -> None:
    found = leaves([request("abcX"), request("abcY"), request("abcdZ"), request("abeZ")])
    read = [("".join(map(chr, leaf.fed)), sorted(leaf.requests)) for leaf in found]
    assert read == [("abe", [3]), ("abcd", [0, 1, 2])]


def test_choices_share_their_context_and_documents_their_own() -> None:
    first, second = "the first long context ", "the second long context "
    requests = [request(context + choice) for context in (first, second) for choice in ("red!", "blue!", "green!")]
    found = groups(leaves(requests), row_tokens=0.5, copy_share=0.0)
    assert texts(found) == [
        (len(first), [first + choice for choice in ("blue", "green", "red")]),
        (len(second), [second + choice for choice in ("blue", "green", "red")]),
    ]


def test_nothing_is_shared_where_it_does_not_pay() -> None:
    requests = [request("ab" + "c" * 20 + "!"), request("ab" + "d" * 20 + "!")]
    assert [group.prefix for group in groups(leaves(requests), 0.5, 0.0)] == [2]
    assert [group.prefix for group in groups(leaves(requests), 1.5, 0.0)] == [0, 0]
    assert [group.prefix for group in groups(leaves(requests), 0.5, 0.6)] == [0, 0]
    assert groups([], 0.5, 0.0) == []


@pytest.mark.parametrize("seed", range(20))
def test_no_partition_of_neighbours_saves_more(seed: int) -> None:
    rng = np.random.default_rng(seed)
    requests = [request("".join(rng.choice(list("ab"), rng.integers(2, 12)))) for _ in range(7)]
    distinct = leaves(requests)

    def cost(cut: list[list]) -> float:
        total = 0.0
        for part in cut:
            fed = [bytes(leaf.fed.astype(np.uint8)) for leaf in part]
            prefix = 0
            while len(part) > 1 and all(len(f) > prefix and f[prefix] == fed[0][prefix] for f in fed):
                prefix += 1
            alone = sum(map(len, fed))
            saved = (len(part) - 1) * prefix - len(part) * 0.5
            total += alone - max(0.0, saved)
        return total

    n = len(distinct)
    best = min(
        cost([distinct[a:b] for a, b in itertools.pairwise([0, *cuts, n])])
        for k in range(n)
        for cuts in itertools.combinations(range(1, n), k)
    )
    found = groups(distinct, 0.5, 0.0)
    ours = sum(group.computed + (0.5 * len(group.leaves) if group.prefix else 0) for group in found)
    assert ours == pytest.approx(best)
    assert sorted(id(leaf) for group in found for leaf in group.leaves) == sorted(map(id, distinct))


@pytest.mark.parametrize("seed", range(10))
def test_batches_are_the_cheapest_cut(seed: int) -> None:
    rng = np.random.default_rng(seed)
    lengths = sorted(rng.integers(1, 30, 9).tolist(), reverse=True)

    def cost(edges: tuple[int, ...]) -> float:
        parts = [lengths[a:b] for a, b in itertools.pairwise(edges)]
        if any(len(part) > 4 or (len(part) > 1 and len(part) * part[0] > 60) for part in parts):
            return float("inf")
        return sum(len(part) * part[0] + 7 for part in parts)

    cuts = batches(lengths, most_tokens=60, most_rows=4, call_tokens=7)
    found = (0, *(cut.stop for cut in cuts))
    every = (
        (0, *inner, len(lengths))
        for k in range(len(lengths))
        for inner in itertools.combinations(range(1, len(lengths)), k)
    )
    assert cost(found) == min(map(cost, every))
    assert batches([100], most_tokens=60, most_rows=4, call_tokens=7) == [slice(0, 1)]
    assert batches([], 60, 4, 7) == []


def test_what_does_not_fit_into_a_batch_is_cut_where_its_prefix_is_short() -> None:
    def group(prefix: str, endings: list[str]) -> Group:
        return Group(len(prefix), leaves([request(prefix + ending + "!") for ending in endings]))

    endings = [f"{letter}123456789" for letter in "abcdef"]
    small, short, long = group("the start ", endings[:2]), group("an", endings), group("three", endings)
    lone = Group(0, leaves([request("x" * 90)]))
    fit, larger = fitting([small, short, long, lone], most_tokens=34)
    assert larger == [long]  # 5 of 34 tokens, more than a sixteenth
    assert texts(fit) == texts([small, group("an", endings[:3]), group("an", endings[3:]), lone])
    assert sum(part.computed for part in fit) == 30 + 2 * 32 + 89


@pytest.mark.parametrize("seed", range(20))
def test_even_batches_are_few_and_none_is_much_smaller(seed: int) -> None:
    rng = np.random.default_rng(seed)
    sizes = rng.integers(1, 40, rng.integers(1, 200)).tolist()
    cuts = even_cuts(sizes, 100)
    assert [size for cut in cuts for size in sizes[cut]] == sizes
    held = [sum(sizes[cut]) for cut in cuts]
    assert max(held) <= 100 and len(held) <= 1 + sum(sizes) // 61  # each but the last had no room for a row of 39
    assert even_cuts(sizes, 10**6) == [slice(0, len(sizes))]
    assert even_cuts([], 100) == []
    assert even_cuts([300, 2, 300], 100) == [slice(0, 1), slice(1, 2), slice(2, 3)]
