"""Token ids and text: special tokens come from structure, never from what a person writes."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import lite
from lite import demo
from lite.bundle.manifest import TOKENIZER
from lite.errors import BadInput
from lite.text.tokenizer import IMAGE, MAX_FILE_BYTES, Special, TextStream, Tokenizer

NEWLINE = 13  # LLaMA writes it as the byte <0x0A>


@pytest.fixture(scope="module")
def tokenizer(bundles: Any) -> Tokenizer:
    return lite.load(bundles()).tokenizer


def byte_tokens(text: str) -> list[int]:
    """LLaMA's byte pieces follow its three control tokens."""
    return [3 + byte for byte in text.encode()]


def test_a_prompt_begins_with_one_bos(tokenizer: Tokenizer) -> None:
    assert tokenizer.encode(["two dogs"])[0] == tokenizer.bos
    assert tokenizer.tokenize("two dogs") == tokenizer.tokenize("<s>two dogs")
    assert tokenizer.tokenize("two dogs").count(tokenizer.bos) == 1
    assert tokenizer.encode([]) == tokenizer.tokenize("") == [tokenizer.bos]


def test_a_continuation_has_neither_bos_nor_the_dummy_prefix(tokenizer: Tokenizer) -> None:
    assert tokenizer.decode(tokenizer.encode(["dogs"])) == " dogs"
    assert tokenizer.decode(tokenizer.encode(["dogs"], begin=False)) == "dogs"
    assert tokenizer.bos not in tokenizer.encode(["dogs"], begin=False)


@pytest.mark.parametrize("name", ["<s>", "</s>", "<image>", "<|endofchunk|>", "<PAD>"])
def test_special_tokens_are_recognised_in_prompts_and_never_in_text(
    name: str, tokenizer: Tokenizer
) -> None:
    number = tokenizer.special_ids[name]
    assert tokenizer.tokenize(f"red {name} blue").count(number) == 1 + (name == "<s>")
    assert number not in tokenizer.encode([f"red {name} blue"], begin=False)
    assert tokenizer.decode(tokenizer.encode([f"red {name}"], begin=False)) == f"red {name}"
    assert tokenizer.encode([Special(name)], begin=False) == [number]


@given(text=st.text(st.sampled_from("</s>image|ndofchukPAD \n")))
def test_no_text_becomes_a_special_token(text: str, tokenizer: Tokenizer) -> None:
    assert not set(tokenizer.encode([text], begin=False)) & set(tokenizer.special_ids.values())


def test_whitespace_beside_a_special_token_is_stripped(tokenizer: Tokenizer) -> None:
    tight = tokenizer.encode(["red", IMAGE, "blue"])
    assert tokenizer.encode(["red \n\n", IMAGE, " \n blue"]) == tight
    assert tokenizer.tokenize("red \n<image>\n blue") == tight
    assert tokenizer.encode(["red ", "blue"]) != tokenizer.encode(["red", "blue"])


def test_text_after_a_special_token_has_the_dummy_prefix_again(tokenizer: Tokenizer) -> None:
    blue = tokenizer.encode(["blue"])[1:]
    assert tokenizer.encode([IMAGE, "blue"], begin=False)[1:] == blue
    assert tokenizer.encode([IMAGE, "  \n", "blue"], begin=False)[1:] == blue


def test_blank_text_between_special_tokens_adds_nothing(tokenizer: Tokenizer) -> None:
    assert tokenizer.encode([IMAGE, " \n ", IMAGE], begin=False) == [tokenizer.image] * 2
    assert tokenizer.tokenize("<image> <image>")[1:] == [tokenizer.image] * 2


# U+2581 is SentencePiece's own sign for a space; lone surrogates are not text.
TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\u2581"))


@given(text=TEXT)
def test_decoding_undoes_encoding(text: str, tokenizer: Tokenizer) -> None:
    assert tokenizer.decode(tokenizer.encode([text], begin=False)) == text


@given(text=TEXT)
def test_the_pieces_of_a_stream_make_the_whole_and_hold_no_half_character(
    text: str, tokenizer: Tokenizer
) -> None:
    stream = TextStream(tokenizer)
    pieces = [stream.feed(i) for i in tokenizer.encode([text], begin=False)]
    assert "".join(pieces) == text
    assert all(piece in text for piece in pieces)
    assert stream.end() == ""


@pytest.mark.parametrize("character", ["é", "語", "🐕", "👩‍🚀"])
def test_a_character_cut_between_tokens_waits_for_its_rest(
    character: str, tokenizer: Tokenizer
) -> None:
    stream = TextStream(tokenizer)
    shown = [stream.feed(token) for token in byte_tokens(character)]
    assert "".join(shown) == character
    assert shown[0] == ""
    assert all(len(piece) <= 1 for piece in shown)


def test_a_character_that_never_ends_is_one_replacement_character(tokenizer: Tokenizer) -> None:
    dog = byte_tokens("🐕")
    assert tokenizer.decode(dog[:3]) == "\ufffd"
    assert tokenizer.decode([*dog[:2], *byte_tokens("a")]) == "\ufffda"
    assert tokenizer.decode(dog[1:2]) == "\ufffd"


def test_special_and_unknown_tokens_have_no_text(tokenizer: Tokenizer) -> None:
    numbers = [0, *tokenizer.special_ids.values(), 5000]
    assert tokenizer.decode(numbers) == ""
    assert tokenizer.decode([*byte_tokens("a"), 1, NEWLINE]) == "a\n"


def test_an_answer_may_hold_no_special_token_but_the_end(tokenizer: Tokenizer) -> None:
    assert tokenizer.suppressed(400) == [tokenizer.bos]
    assert tokenizer.suppressed(403) == [tokenizer.bos, 400, 401, 402]


def test_a_file_that_is_no_tokenizer_is_refused(tmp_path: Any) -> None:
    for content in (b"", b"{}", b"\xff\xfe", b'{"model": {"type": "BPE"}}'):
        (tmp_path / "tokenizer.json").write_bytes(content)
        with pytest.raises(BadInput, match="cannot be read as a tokenizer"):
            Tokenizer.from_file(tmp_path / "tokenizer.json", {"<s>": 1, "</s>": 2, "<image>": 3})


SPECIAL_IDS = {"<s>": 1, "</s>": 2, "<image>": 3}
DOUBLING = {"type": "Replace", "pattern": {"String": "a"}, "content": "aa"}
FIXED = {"strategy": {"Fixed": 10**11}, "direction": "Right", "pad_to_multiple_of": None}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"normalizer": {"type": "Sequence", "normalizers": [DOUBLING] * 60}}, "normalizer makes"),
        ({"normalizer": {**DOUBLING, "content": "a" * 1000}}, "normalizer makes"),
        ({"padding": {**FIXED, "pad_id": 0, "pad_type_id": 0, "pad_token": "x"}}, "has padding"),
        ({"truncation": {"max_length": 1, "strategy": "LongestFirst"}}, "has truncation"),
        ({"post_processor": {"type": "ByteLevel"}}, "has post_processor"),
        ({"added_tokens": [{"id": 5, "content": "x"}]}, "has added_tokens"),
        ({"model": {"type": "WordLevel", "vocab": {}, "unk_token": "x"}}, "is not BPE"),
        ({"model": []}, "no object with a model"),
    ],
)
def test_a_tokenizer_that_makes_much_of_little_is_refused(
    change: dict[str, Any], words: str, tmp_path: Path
) -> None:
    data = json.loads((demo.folder() / TOKENIZER).read_text())
    (tmp_path / TOKENIZER).write_text(json.dumps(data | change))
    with pytest.raises(BadInput, match=words):
        Tokenizer.from_file(tmp_path / TOKENIZER, SPECIAL_IDS)


@pytest.mark.parametrize("content", [b"", b"[]", b"\xff", b"[" * 200_000, b'{"a":' * 200_000])
def test_a_deep_or_damaged_tokenizer_is_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / TOKENIZER).write_bytes(content)
    with pytest.raises(BadInput, match="cannot be read as a tokenizer"):
        Tokenizer.from_file(tmp_path / TOKENIZER, SPECIAL_IDS)


def test_a_huge_tokenizer_is_refused_by_its_size(tmp_path: Path) -> None:
    with (tmp_path / TOKENIZER).open("wb") as file:
        file.truncate(MAX_FILE_BYTES + 1)
    with pytest.raises(BadInput, match="it has more than 128 MiB"):
        Tokenizer.from_file(tmp_path / TOKENIZER, SPECIAL_IDS)
