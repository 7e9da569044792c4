"""The runtime's tokenizer gives sentencepiece's own ids, whichever file it is made from."""

import io
import json
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import sentencepiece
from hypothesis import given, settings
from hypothesis import strategies as st
from sentencepiece import sentencepiece_model_pb2 as proto
from tokenizers import Tokenizer
from transformers import LlamaTokenizer

from qlora.checkpoints.tokenizer_files import SPACE, read_tokenizer
from tests.refusals import refused

LLAMA = Path(__file__).parents[2] / "fixtures" / "mmgpt-tiny" / "llama"
REFERENCE = sentencepiece.SentencePieceProcessor(model_file=str(LLAMA / "tokenizer.model"))
OURS = read_tokenizer(LLAMA).tokenizer
WORDS = [REFERENCE.id_to_piece(i).replace(SPACE, " ") for i in range(REFERENCE.get_piece_size())]

any_text = st.text(st.characters(exclude_categories=["Cs"]), min_size=1)
word_text = st.lists(st.sampled_from(WORDS), min_size=1, max_size=30).map("".join)
letter_text = st.text("abeht in\n", min_size=1, max_size=60)
texts = st.one_of(any_text, word_text, letter_text)

check_refused = partial(refused, read_tokenizer)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return Path(shutil.copytree(LLAMA, tmp_path / "llama"))


@pytest.fixture(scope="module")
def modern(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder as transformers saves it today: tokenizer.json, no tokenizer.model."""
    path = tmp_path_factory.mktemp("modern")
    LlamaTokenizer.from_pretrained(LLAMA).save_pretrained(path)
    assert not (path / "tokenizer.model").exists()
    return path


@settings(max_examples=300, deadline=None)
@given(texts)
def test_ids_are_those_of_sentencepiece(text: str) -> None:
    assert OURS.encode(" " + text).ids == REFERENCE.encode(text)


@settings(max_examples=100, deadline=None)
@given(texts)
def test_decoding_gives_the_text_back(text: str) -> None:
    # U+2581 stands for the space, so it alone does not survive.
    decoded = OURS.decode(OURS.encode(" " + text).ids, skip_special_tokens=False)
    assert decoded == " " + text.replace(SPACE, " ")


def test_nothing_is_added_and_nothing_is_special() -> None:
    assert OURS.encode("").ids == []
    assert OURS.encode("the").ids != OURS.encode(" the").ids
    for token in ("<s>", "</s>", "<unk>", "<0x0A>", "<image>"):
        ids = OURS.encode(token).ids
        assert len(ids) > 1
        assert not {0, 1, 2, 13} & set(ids)
        assert OURS.decode(ids) == token
    assert OURS.get_added_tokens_decoder() == {}
    assert OURS.pre_tokenizer is None
    assert OURS.post_processor is None


def test_the_ids_are_those_of_the_model() -> None:
    files = read_tokenizer(LLAMA)
    assert (files.unk, files.bos, files.eos, files.pad, files.size) == (0, 1, 2, None, 400)


def test_a_saved_tokenizer_is_the_same(tmp_path: Path) -> None:
    OURS.save(str(tmp_path / "tokenizer.json"))
    again = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    text = " two dogs\n on the table é 日本 </s>"
    assert again.encode(text).ids == OURS.encode(text).ids


def test_configs_of_2023_work(folder: Path) -> None:
    config = {"bos_token": "", "eos_token": "", "unk_token": "", "model_max_length": 10**30}
    config["tokenizer_class"] = "LLaMATokenizer"
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    (folder / "special_tokens_map.json").unlink()
    files = read_tokenizer(folder)
    assert (files.unk, files.bos, files.eos, files.pad) == (0, 1, 2, None)


def test_the_model_file_alone_is_enough(folder: Path) -> None:
    for path in folder.iterdir():
        if path.name != "tokenizer.model":
            path.unlink()
    assert read_tokenizer(folder).size == 400


@pytest.mark.parametrize("token", ["<unk>", {"content": "<unk>", "lstrip": False}])
def test_a_pad_token_among_the_base_pieces_is_taken(folder: Path, token: object) -> None:
    (folder / "special_tokens_map.json").write_text(json.dumps({"pad_token": token}))
    assert read_tokenizer(folder).pad == 0


def test_added_tokens_are_refused(folder: Path) -> None:
    (folder / "added_tokens.json").write_text(json.dumps({"[PAD]": 400}))
    check_refused(folder, "[PAD]")
    (folder / "added_tokens.json").write_text(json.dumps({"<unk>": 0}))
    assert read_tokenizer(folder).size == 400
    (folder / "special_tokens_map.json").write_text(json.dumps({"pad_token": "<pad>"}))
    check_refused(folder, "<pad>")


def check_same_tokenizer(folder: Path) -> None:
    files = read_tokenizer(folder)
    assert (files.unk, files.bos, files.eos, files.pad, files.size) == (0, 1, 2, None, 400)

    @settings(max_examples=150, deadline=None)
    @given(texts)
    def same(text: str) -> None:
        assert files.tokenizer.encode(text).ids == OURS.encode(text).ids

    same()


def test_both_files_give_the_same_ids(modern: Path) -> None:
    check_same_tokenizer(modern)


def change_json(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    path = folder / "tokenizer.json"
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def prepend_and_replace(content: dict[str, Any]) -> None:
    """The spelling of transformers 4: a normalizer, merges as strings, the unknown token named."""
    steps = [
        {"type": "Prepend", "prepend": SPACE},
        {"type": "Replace", "pattern": {"String": " "}, "content": SPACE},
    ]
    content["normalizer"] = {"type": "Sequence", "normalizers": steps}
    content["pre_tokenizer"] = None
    model = content["model"]
    model["unk_token"] = "<unk>"
    model["merges"] = [" ".join(pair) for pair in model["merges"]]


def test_the_older_spelling_gives_the_same_ids(tmp_path: Path, modern: Path) -> None:
    folder = Path(shutil.copytree(modern, tmp_path / "older"))
    change_json(folder, prepend_and_replace)
    check_same_tokenizer(folder)


@pytest.mark.parametrize(
    "change",
    [
        lambda c: c.update(pre_tokenizer=None),
        lambda c: c.update(pre_tokenizer={"type": "ByteLevel"}),
        lambda c: c["pre_tokenizer"].update(split=True),
        lambda c: c["pre_tokenizer"].update(prepend_scheme="never"),
        lambda c: c.update(normalizer={"type": "NFKC"}),
        lambda c: c["model"].update(type="Unigram"),
        lambda c: c["model"].update(byte_fallback=False),
        lambda c: c["model"].update(ignore_merges=True),
        lambda c: c["model"].update(vocab=[]),
        lambda c: c["model"].update(merges=[["a"]]),
        lambda c: c["model"].update(merges=[["a", "\u4e00\u4e01"]]),
        lambda c: c["model"]["vocab"].update(x=999),
        lambda c: c["model"]["vocab"].pop("<s>"),
        lambda c: c["added_tokens"].append({"id": 400, "content": "<pad>"}),
        lambda c: c.update(added_tokens=[3]),
        lambda c: c.update(model=None),
    ],
)
def test_other_tokenizers_are_refused(
    tmp_path: Path, modern: Path, change: Callable[[dict[str, Any]], object]
) -> None:
    folder = Path(shutil.copytree(modern, tmp_path / "other"))
    change_json(folder, change)
    check_refused(folder, "tokenizer.json")


def change_model(folder: Path, change: Callable[[Any], object]) -> None:
    model: Any = proto.ModelProto()
    model.ParseFromString((folder / "tokenizer.model").read_bytes())
    change(model)
    (folder / "tokenizer.model").write_bytes(model.SerializeToString())


def set_type(index: int, kind: int) -> Callable[[Any], None]:
    return lambda model: setattr(model.pieces[index], "type", kind)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda m: setattr(m.trainer_spec, "model_type", 1), "no BPE"),
        (lambda m: setattr(m.trainer_spec, "byte_fallback", False), "byte fallback"),
        (lambda m: setattr(m.normalizer_spec, "add_dummy_prefix", False), "leading space"),
        (lambda m: setattr(m.normalizer_spec, "remove_extra_whitespaces", True), "whitespace"),
        (lambda m: setattr(m.normalizer_spec, "escape_whitespaces", False), "whitespace"),
        (lambda m: setattr(m.trainer_spec, "treat_whitespace_as_suffix", True), "after words"),
        (lambda m: setattr(m.pieces[300], "piece", "re"), "twice"),
        (lambda m: setattr(m.pieces[1], "piece", "<start>"), "<s>"),
        (lambda m: setattr(m.pieces[300], "piece", "日本"), "日"),
        (set_type(300, 5), "unused"),
        (set_type(0, 3), "unknown"),
        (set_type(3, 1), "byte"),
        (set_type(399, 3), "one-character"),
    ],
)
def test_other_sentencepiece_models_are_refused(
    folder: Path, change: Callable[[Any], object], said: str
) -> None:
    change_model(folder, change)
    check_refused(folder, "tokenizer.model", said)


@pytest.mark.parametrize("data", [b"", b"hello", b"version https://git-lfs", b"\x00" * 100])
def test_a_damaged_model_file_is_refused(folder: Path, data: bytes) -> None:
    (folder / "tokenizer.model").write_bytes(data)
    check_refused(folder, "tokenizer.model")


def test_a_folder_without_tokenizer_is_refused(folder: Path) -> None:
    (folder / "tokenizer.model").unlink()
    check_refused(folder, "neither tokenizer.model nor tokenizer.json")


def trained(folder: Path, **options: object) -> sentencepiece.SentencePieceProcessor:
    """A model trained on repetitive text, where many splits of a piece overlap."""
    lines = ["banana anan aaaa aaa ---- -- ==== abab ababa   x    y <tag> ba-na"] * 50
    out = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines),
        model_writer=out,
        model_type="bpe",
        vocab_size=320,
        byte_fallback=True,
        character_coverage=1.0,
        remove_extra_whitespaces=False,
        allow_whitespace_only_pieces=True,
        hard_vocab_limit=False,
        minloglevel=2,
        **({"normalization_rule_name": "identity"} | options),
    )
    (folder / "tokenizer.model").write_bytes(out.getvalue())
    return sentencepiece.SentencePieceProcessor(model_proto=out.getvalue())


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"user_defined_symbols": ["<tag>", "<tag>x", "ana", f"{SPACE}y"]},
        {"normalization_rule_name": "nfkc"},
    ],
)
def test_repetitive_text_and_declared_pieces_give_the_same_ids(
    tmp_path: Path, options: dict[str, object]
) -> None:
    reference = trained(tmp_path, **options)
    ours = read_tokenizer(tmp_path).tokenizer
    pieces = [reference.id_to_piece(i) for i in range(259, reference.get_piece_size())]
    text = st.one_of(
        st.text("abn -=xy", min_size=1),
        st.lists(st.sampled_from(pieces), min_size=1).map("".join),
        st.text(st.sampled_from("aé①ｱﬁ<tag>\n"), min_size=1),
    )

    @settings(max_examples=300, deadline=None)
    @given(text)
    def same(text: str) -> None:
        assert ours.encode(" " + text).ids == reference.encode(text)

    same()
