"""ListOps as Long Range Arena draws it: nested MIN, MAX, MED and SM (sum modulo 10) of digits, and their value."""

from __future__ import annotations

import functools
import itertools
import multiprocessing
import random
from collections.abc import Callable
from typing import NamedTuple

from tqdm import tqdm

from rwkv_core import machine

# A token is a digit, an operator with its bracket, or the bracket that closes; the release's parentheses say nothing.
OPERATORS = ("[MIN", "[MAX", "[MED", "[SM")
TOKENS = (*map(str, range(10)), *OPERATORS, "]")
FIRST_OPERATOR, CLOSE = TOKENS.index("[MIN"), TOKENS.index("]")

OPERATOR_SHARE = 0.25  # of the nodes above the deepest
DEEPEST = 10
ARGUMENTS = (2, 10)
BOUNDS = (500, 2000)  # tokens: more than the first, fewer than the second
BLOCK = 500  # examples that one process draws in a row, from a seed of their own


class Example(NamedTuple):
    """tokens: their places in TOKENS. value: the answer, 0 to 9."""

    tokens: bytes
    value: int


class TooLong(Exception):
    """An expression outgrew the upper bound."""


def examples(count: int, seed: int, bounds: tuple[int, int] = BOUNDS) -> list[Example]:
    """`count` different examples, the same for the same seed on any machine; drawn by all cores."""
    values: dict[bytes, int] = {}
    draw = functools.partial(_block, seed=seed, bounds=bounds)
    with (
        multiprocessing.get_context("spawn").Pool(min(machine.cores(), -(-count // BLOCK))) as pool,
        tqdm(total=count, desc="drawing ListOps", unit="example", leave=False, dynamic_ncols=True) as bar,
    ):
        for first in itertools.count(step=-(-count // BLOCK)):  # more than one round only where examples repeat
            for block in pool.imap(draw, range(first, first - (-count // BLOCK))):
                values.update(block)
                bar.update(len(block))
            if len(values) >= count:
                return [Example(*item) for item in itertools.islice(values.items(), count)]
    raise AssertionError


def _block(number: int, seed: int, bounds: tuple[int, int]) -> list[Example]:
    rng = random.Random(f"{seed} {number}")
    block: list[Example] = []
    while len(block) < BLOCK:
        tokens = bytearray()
        try:
            value = _node(tokens, rng.random, 1, bounds[1])
        except TooLong:
            continue
        if bounds[0] < len(tokens) < bounds[1]:
            block.append(Example(bytes(tokens), value))
    return block


def _node(tokens: bytearray, draw: Callable[[], float], depth: int, longest: int) -> int:
    """Append a random expression; its value."""
    if depth >= DEEPEST or draw() >= OPERATOR_SHARE:
        tokens.append(int(10 * draw()))
        return tokens[-1]
    if len(tokens) >= longest:
        raise TooLong
    operator = int(len(OPERATORS) * draw())
    tokens.append(FIRST_OPERATOR + operator)
    least, most = ARGUMENTS
    count = least + int((most - least + 1) * draw())
    arguments = [_node(tokens, draw, depth + 1, longest) for _ in range(count)]
    tokens.append(CLOSE)
    return applied(operator, arguments)


def applied(operator: int, arguments: list[int]) -> int:
    """The value of an operator; a median between two digits is rounded down."""
    match OPERATORS[operator]:
        case "[MIN":
            return min(arguments)
        case "[MAX":
            return max(arguments)
        case "[MED":
            ordered, half = sorted(arguments), len(arguments) // 2
            return ordered[half] if len(arguments) % 2 else (ordered[half - 1] + ordered[half]) // 2
        case _:
            return sum(arguments) % 10
