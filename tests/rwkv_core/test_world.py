"""The World tokenizer: small vocabularies in the file's format; the real one, beside the author's package, where it is
at hand.
"""

import gc
import json
import random
import tarfile
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest
from tokenizers import Tokenizer, models

from evals import identity
from evals.ask.asker import Asker
from evals.ask.score import Scorer
from evals.language import corpus
from rwkv_core import content, text, world
from rwkv_core.errors import BadInput
from rwkv_core.spec import ModelSpec
from rwkv_core.text import Codec
from tests.checks import parity

DATA = Path(__file__).resolve().parents[3] / "shared" / "data"
REAL = DATA / "tokenizers" / world.NAME
NOVELS = DATA / "text" / "100_english_novels.tar.xz"
LONGER = ["\n\n", " the", "ab", "née", b"\xe9\xbe", b" \xf0\x9f", "abcde", " User", "a" * 128]
TOKENS = [b"", *(bytes([b]) for b in range(256)), *(t if isinstance(t, bytes) else t.encode() for t in LONGER)]
WORLD = ModelSpec("World", "rwkv4", {"model_type": "rwkv", "vocab_size": 272})
PILE = ModelSpec("Pile", "rwkv4", {"model_type": "rwkv", "vocab_size": 260})


def line(number: int, token: bytes) -> str:
    try:
        return f"{number} {token.decode()!r} {len(token)}"
    except UnicodeDecodeError:
        return f"{number} {token!r} {len(token)}"


LINES = [line(i, token) for i, token in enumerate(TOKENS)][1:]


def write(folder: Path, lines: list[str] = LINES, name: str = world.NAME, end: str = "\n") -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / name
    path.write_bytes("".join(f"{one}{end}" for one in lines).encode())
    return path


@pytest.fixture(autouse=True)
def small(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if "real" not in request.fixturenames:
        monkeypatch.setattr(world, "TOKENS", len(LINES))


@pytest.fixture(scope="module")
def codec(tmp_path_factory: pytest.TempPathFactory) -> Codec:
    return text.of_file(write(tmp_path_factory.mktemp("world"), name="rwkv_vocab_small.txt"))


def longest(source: bytes) -> list[int]:
    found = []
    while source:
        token = max(filter(source.startswith, TOKENS), key=len)
        found.append(TOKENS.index(token))
        source = source[len(token) :]
    return found


def test_the_longest_token_at_each_place(codec: Codec) -> None:
    assert codec.encode("abcde abcd née") == codec.with_special("abcde abcd née") == longest("abcde abcd née".encode())
    assert [TOKENS[i] for i in codec.encode("abcd 龙")] == [b"ab", b"c", b"d", b" ", b"\xe9\xbe", b"\x99"]
    rng = random.Random(0)
    pieces = [*"ab \n\0龙🐉é\u0301", "\r\n", "ab", "abcde", " the", "née", "a" * 130, "<s>"]
    texts = ["", *("".join(rng.choices(pieces, k=rng.randrange(1, 20))) for _ in range(100))]
    tokens = [longest(text.encode()) for text in texts]
    assert [codec.encode(text) for text in texts] == codec.encode_all(texts) == tokens
    assert [codec.decode(ids) for ids in tokens] == texts
    codec.check(texts)


def test_tokens_without_text_and_parts_of_characters(codec: Codec) -> None:
    first, second, after = codec.encode("龙.")
    assert codec.decode([0, first, len(TOKENS), second, 65_535, after, 1 << 20]) == "龙."
    assert codec.decode([first, after]) == "\ufffd." and codec.decode([]) == ""
    assert (codec.spelled(0), codec.spelled(first), codec.spelled(after)) == ("", "\ufffd", ".")
    assert (codec.bos, codec.eos, codec.size) == (None, 0, len(TOKENS))


def test_a_token_that_the_model_lacks(codec: Codec) -> None:
    lacking = codec.within(len(TOKENS) - 1)
    assert lacking.encode("abcde") == lacking.encode_all(["abcde"])[0] == codec.encode("abcde")
    for encode in (lacking.encode, lacking.with_special, lambda text: lacking.encode_all(["", text])):
        with pytest.raises(BadInput, match=r"gives 'a{128}' the token 265, and the model's vocabulary ends at 264"):
            encode("a" * 128)


def changed(number: int, new: str) -> list[str]:
    return [*LINES[: number - 1], new, *LINES[number:]]


@pytest.mark.parametrize(
    ("lines", "wrong"),
    [
        (changed(260, "260 'née'"), "line 260: not `ID LITERAL LENGTH`"),
        (changed(260, "260 'né 3"), "line 260: not `ID LITERAL LENGTH`"),
        (changed(260, "260 print('x') 1"), "line 260: not `ID LITERAL LENGTH`"),
        (changed(260, "260 12 2"), "line 260: not `ID LITERAL LENGTH`"),
        (changed(260, "260 '\\ud800' 3"), "line 260: not `ID LITERAL LENGTH`"),
        (changed(2, ""), "line 2: not `ID LITERAL LENGTH`"),
        (changed(260, "260 'née' 3"), "line 260: 4 bytes, and its length says 3"),
        (changed(260, "260 '' 0"), "line 260: 0 bytes, and its length says 0"),
        ([*LINES[:99], *LINES[100:]], "line 100: the id 101, where 100 follows"),
        (changed(260, "260 'ab' 2"), "line 260: b'ab' is the token 259 already"),
        (changed(8, "8 'xyz' 3"), "no token for the byte 7, so that not every text has tokens"),
        (LINES[:-1], "264 lines, where the whole file has 265"),
        ([], "0 lines, where the whole file has 265"),
    ],
)
def test_a_damaged_file(tmp_path: Path, lines: list[str], wrong: str) -> None:
    path = write(tmp_path, lines)
    with pytest.raises(BadInput) as raised:
        text.of_file(path)
    assert str(raised.value).startswith(f"{path}: {wrong}") and "\n" not in str(raised.value)
    assert str(raised.value).endswith(f"; download {world.NAME} again")


def test_a_file_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"rwkv_vocab_x.txt: not a tokenizer file \(No such file"):
        text.of_file(tmp_path / "rwkv_vocab_x.txt")
    path = write(tmp_path)
    path.write_bytes(path.read_bytes().replace("é".encode(), b"\xe9"))
    for read in (text.of_file, text.content):
        with pytest.raises(BadInput, match=r"not UTF-8 text \(.* at byte \d+\)"):
            read(path)


def test_lines_may_end_in_two_ways_and_it_is_the_same_tokenizer(tmp_path: Path) -> None:
    unix, windows = write(tmp_path / "unix"), write(tmp_path / "windows", end="\r\n")
    assert unix.read_bytes() != windows.read_bytes() and world.read(unix) == world.read(windows) == TOKENS
    name, place = identity.tokenizer(str(windows), {})
    assert (name, place) == (identity.tokenizer(str(unix), {})[0], str(windows))
    other = write(tmp_path / "other", changed(265, "265 'b' 1"))
    assert identity.tokenizer(str(other), {})[0] != name
    for folder in ("unix", "windows", "other"):
        (tmp_path / folder / "m.pth").write_bytes(b"weights")
    same, also, different = (content.checkpoint(tmp_path / f / "m.pth", 272) for f in ("unix", "windows", "other"))
    assert same == also != different


def lone(folder: Path, name: str = "tokenizer.json") -> None:
    Tokenizer(models.WordLevel({"ab": 0}, unk_token="ab")).save(str(folder / name))


@pytest.mark.parametrize("name", ["tokenizer.json", "20B_tokenizer.json"])
def test_it_is_found_beside_the_weights_or_above(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    path = folder / "m.pth"
    path.write_bytes(b"weights")
    with pytest.raises(BadInput, match=f"no tokenizer; put .* or {world.NAME} beside its weights"):
        text.find(path, WORLD)
    alone = content.checkpoint(path, 272)
    write(tmp_path)
    with pytest.raises(BadInput, match=f"{world.NAME}: 266 tokens, and Pile has 260; put its own tokenizer beside"):
        text.find(path, PILE)
    assert text.find(path, WORLD).encode("abcde") == longest(b"abcde")
    above = content.checkpoint(path, 272)
    write(folder)
    assert text.find(path, PILE).encode("abcde") == text.find(path, WORLD).encode("abcde") == longest(b"abcde")
    assert len({alone, above, content.checkpoint(path, 272)}) == 3
    (folder / world.NAME).unlink()
    for where in (tmp_path, folder):  # a model has the one of several that its vocabulary has room for
        write(where)
        without = content.checkpoint(path, 272)
        lone(where, name)
        assert text.find(path, WORLD).encode("abcde") == longest(b"abcde") and text.find(path, PILE).encode("ab") == [0]
        assert content.checkpoint(path, 272) == without != content.checkpoint(path, 260)


def test_a_repositorys_own_class_is_refused_and_the_file_beside_it_used(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "rwkv5"}')
    (tmp_path / "vocab.txt").write_text("<s>\nb'a'\n")
    code = {"AutoTokenizer": ["hf_rwkv_tokenizer.RwkvTokenizer", None]}
    for config in ({"tokenizer_class": "Rwkv5Tokenizer"}, {"tokenizer_class": "RwkvTokenizer", "auto_map": code}):
        (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
        with pytest.raises(BadInput, match=f"World tokenizer as code, which is never run; put {world.NAME} beside it"):
            text.find(tmp_path, WORLD)
    before = content.checkpoint(tmp_path, 272)
    write(tmp_path)
    assert text.find(tmp_path, WORLD).encode("abcde") == longest(b"abcde")
    assert content.checkpoint(tmp_path, 272) != before


def test_it_may_be_given_as_a_file(tmp_path: Path, codec: Codec) -> None:
    path = write(tmp_path, name="rwkv_vocab_small.txt")
    model = parity.make("tiny")
    model.spec = WORLD
    encode, end = corpus.codec(model, str(path))
    assert (encode(["abcde", "née"]), end) == ([longest(b"abcde"), longest("née".encode())], 0)
    asker = Asker.of(model, "cpu", str(path), "v0.4")
    assert (asker.special_tokens, asker.prefix, asker.prefix_token_id, asker.ends) == ([], [], 0, {0})
    assert asker.pair("", "ab") == ([0], longest(b"ab"))
    assert asker.pair("ab ", "the") == (longest(b"ab"), longest(b" the"))  # one token, across what was asked
    author = Asker(Scorer(model, "cpu"), codec, "v0.3")
    assert author.pair("ab", " the") == (longest(b"\nab"), longest(b" the"))
    model.spec = PILE
    with pytest.raises(BadInput, match=r"rwkv_vocab_small\.txt: 266 tokens, and Pile has 260"):
        corpus.codec(model, str(path))


@pytest.fixture(scope="module")
def real() -> tuple[list[bytes], Codec]:
    if not REAL.is_file():
        pytest.skip("the World vocabulary is not at hand")
    tokens = world.read(REAL)
    return tokens, Codec.of_world(tokens)


@pytest.fixture(scope="module")
def authors() -> Callable[[str], list[int]]:
    gc.disable()  # 65 thousand nodes of 256 references are its whole time
    try:
        from rwkv.rwkv_tokenizer import TRIE_TOKENIZER

        return TRIE_TOKENIZER(str(REAL)).encode
    finally:
        gc.enable()


def test_the_authors_ids_of_novels_and_of_random_bytes(
    real: tuple[list[bytes], Codec], authors: Callable[[str], list[int]]
) -> None:
    tokens, codec = real
    rng = random.Random(0)
    noise = [rng.randbytes(300) for _ in range(30)] + [b"".join(rng.choices(tokens, k=100)) for _ in range(30)]
    texts = [raw.decode(errors=errors) for raw in noise for errors in ("ignore", "replace")]
    texts += [raw.decode("latin-1") for raw in noise]
    if NOVELS.is_file():
        with tarfile.open(NOVELS) as archive:
            novel = next(member for member in archive if member.isfile())
            texts.append(archive.extractfile(novel).read(200_000).decode(errors="ignore"))  # type: ignore[union-attr]
    assert [codec.encode(text) for text in texts] == codec.encode_all(texts) == [authors(text) for text in texts]
    assert [codec.decode(codec.encode(text)) for text in texts] == texts


def test_the_real_vocabulary(real: tuple[list[bytes], Codec]) -> None:
    tokens, codec = real
    samples = {"\n": [11], "\n\n": [261], " ": [33], "\r\n": [263], "User": [24281], "": []}
    assert {text: codec.encode(text) for text in samples} == samples
    assert codec.size == 65_530 and max(map(len, tokens)) == 128
    assert codec.decode(range(65_536)) == b"".join(tokens).decode(errors="replace")
    # No other token goes on from a word to white space: where a continuation begins with that, a context's tokens alone
    # are those that the whole begins with, and lm-eval's cut loses nothing.
    spelled = (token.decode(errors="replace") for token in tokens)
    across = [t for t in spelled if any(b.isspace() > a.isspace() for a, b in pairwise(t))]
    assert across == ["\u2026\n", "\u3002\n", "\uff0c\n"]
