"""Training reads what the chat holds, and trains answers and their ends, nothing else."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import lite
from lite.chat import conversation as chat
from lite.runtime.vision import ImageFeatures
from lite.text.template import MMGPT
from lite.text.tokenizer import IMAGE
from qlora.data.conversation import BadRecord, Conversation, Exchange
from qlora.data.encode import IGNORE, Sample, encode
from tests.qlora.data.small import PICTURE, fixture_tokenizer, say

TOKENIZER = fixture_tokenizer()
SEEN = ImageFeatures("key", np.zeros(0, np.float32))
SPOKEN = "red </s> <s> <image> <PAD> \n\n### Response:\nblue"


def sample_of(conversation: Conversation, max_tokens: int = 10_000) -> Sample:
    return encode(conversation, TOKENIZER, MMGPT, max_tokens, "set")


def answer_ids(text: str) -> list[int]:
    return TOKENIZER.encode([text], begin=False)


def predicted(sample: Sample) -> list[int]:
    return [t for t in sample.targets.tolist() if t != IGNORE]


@pytest.fixture(scope="module")
def engine(bundles: Any) -> Any:
    return lite.load(bundles()).chat().engine


@pytest.mark.parametrize(
    "conversation",
    [
        say("what is in the image?", "two dogs", images=1),
        say("how to bake lasagna?", "with cheese\n\nand sauce"),
        say("compare", "a car", "a bus", "no", images=2),
        say(" spaces ", " kept "),
        say(SPOKEN, SPOKEN, SPOKEN, images=1),
        Conversation("own opening", say("q", "a", "b").exchanges, "Be brief."),
        Conversation("no opening", say("q", "a", images=1).exchanges, ""),
    ],
)
def test_the_ids_are_those_of_the_chat(conversation: Conversation, engine: Any) -> None:
    held = chat.Conversation(engine, conversation.system)
    held.exchanges = [
        chat.Exchange(e.question, [SEEN] * len(e.images), answer_ids=answer_ids(e.answer))
        for e in conversation.exchanges
    ]
    assert sample_of(conversation).ids.tolist() == held.prompt()[0]
    assert TOKENIZER.special_ids == engine.tokenizer.special_ids


def test_a_context_is_in_the_ids() -> None:
    exchange = Exchange("sum it up", "short", context="a long text")
    sample = sample_of(Conversation("x", (exchange,)))
    assert "\n\n### Input:\na long text\n\n### Response:\n" in TOKENIZER.decode(sample.ids.tolist())


def test_one_answer_and_its_end_are_the_targets_at_the_places_before_them() -> None:
    sample = sample_of(say("what is it?", "two dogs", images=1))
    answer = answer_ids("two dogs")
    assert predicted(sample) == [*answer, TOKENIZER.eos]
    places = np.flatnonzero(sample.targets != IGNORE)
    assert places.tolist() == list(range(len(sample.ids) - len(answer) - 1, len(sample.ids)))
    assert sample.ids.dtype == sample.targets.dtype == np.int64
    assert (sample.trained, sample.source, sample.id) == (len(answer) + 1, "set", "x")


def test_every_answer_of_a_dialogue_is_trained() -> None:
    answers = ("a car", "a bus", "no")
    sample = sample_of(say("what?", *answers, images=1))
    expected = [t for answer in answers for t in (*answer_ids(answer), TOKENIZER.eos)]
    assert predicted(sample) == expected
    next_ids = [*sample.ids[1:].tolist(), None]
    for following, target in zip(next_ids, sample.targets.tolist(), strict=True):
        assert target in (IGNORE, TOKENIZER.eos, following)


def test_an_exchange_that_is_context_only_is_read_and_not_trained() -> None:
    first, second = Exchange("a?", "red", weight=0), Exchange("b?", "blue")
    sample = sample_of(Conversation("x", (first, second)))
    assert predicted(sample) == [*answer_ids("blue"), TOKENIZER.eos]
    assert "red" in TOKENIZER.decode(sample.ids.tolist())


def test_the_targets_are_those_of_the_original() -> None:
    """Labels of mmgpt's collater: answer and EOS, after the tokens of the bare prompt."""
    prompt = TOKENIZER.encode(
        [MMGPT.system + "\n\n### Image:\n", IMAGE, "\n\n### Instruction:\nwhat?\n\n### Response:\n"]
    )
    whole = [*prompt, *answer_ids("two dogs"), TOKENIZER.eos]
    labels = [IGNORE] * len(prompt) + whole[len(prompt) :]
    labels = [IGNORE if t == TOKENIZER.image else t for t in labels]
    sample = sample_of(say("what?", "two dogs", images=1))
    # The original shifts labels by one: the loss at a place is that of the token after it.
    assert sample.ids.tolist() == whole[:-1]
    assert sample.targets.tolist() == labels[1:]


@settings(max_examples=50)
@given(text=st.text(st.sampled_from("</s>image|PAD #Response:\n \u2581")))
def test_no_text_becomes_a_special_token_or_is_trained(text: str) -> None:
    conversation = Conversation(
        text, (Exchange(SPOKEN + text, "yes", context=text + SPOKEN, images=(PICTURE,)),)
    )
    sample = sample_of(conversation)
    ids = sample.ids.tolist()
    assert ids.count(TOKENIZER.bos) == ids.count(TOKENIZER.image) == 1
    assert not {TOKENIZER.eos, TOKENIZER.special_ids["<PAD>"]} & set(ids)
    assert predicted(sample) == [*answer_ids("yes"), TOKENIZER.eos]


def test_an_answer_that_spells_special_tokens_is_plain_text() -> None:
    sample = sample_of(say("q", SPOKEN, "fine"))
    assert predicted(sample).count(TOKENIZER.eos) == 2
    assert not {TOKENIZER.bos, TOKENIZER.image} & set(predicted(sample))
    assert TOKENIZER.decode(predicted(sample)) == SPOKEN + "fine"


def test_what_does_not_fit_loses_whole_exchanges_from_the_end() -> None:
    whole = say("what?", "a car", "a bus", "no", images=1)
    first = sample_of(say("what?", "a car", images=1))
    two = sample_of(say("what?", "a car", "a bus", images=1))
    for room in range(len(first.ids), len(sample_of(whole).ids)):
        sample = sample_of(whole, room)
        expected = two if room >= len(two.ids) else first
        assert sample.ids.tolist() == expected.ids.tolist()
        assert sample.targets.tolist() == expected.targets.tolist()
        assert (sample.dropped, sample.cut) == (1 if expected is two else 2, 0)


def test_images_of_dropped_exchanges_go_with_them() -> None:
    exchanges = (Exchange("a?", "red"), Exchange("b?", "blue", images=(PICTURE,)))
    whole = sample_of(Conversation("x", exchanges))
    sample = sample_of(Conversation("x", exchanges), len(whole.ids) - 1)
    assert sample.images == ()
    assert TOKENIZER.image not in sample.ids
    assert whole.images == (PICTURE,)


def test_a_first_answer_that_is_too_long_loses_its_end_and_is_not_ended() -> None:
    answer = answer_ids("a car and a bus")
    full = sample_of(say("what?", "a car and a bus", images=1))
    for cut in range(1, len(answer)):
        sample = sample_of(say("what?", "a car and a bus", "more", images=1), len(full.ids) - cut)
        assert sample.ids.tolist() == full.ids[:-cut].tolist()
        assert predicted(sample) == answer[:-cut]
        assert sample.targets[-1] == IGNORE
        assert (sample.dropped, sample.cut) == (1, cut)


def test_without_room_for_an_answer_nothing_is_trained_and_no_image_is_lost() -> None:
    for room in (1, 20, len(sample_of(say("what?", "x", images=1)).ids) - 1):
        sample = sample_of(say("what?", "x", images=1), room)
        assert sample.trained == 0
        assert sample.ids.tolist().count(TOKENIZER.image) == len(sample.images) == 1


def test_text_with_half_a_character_is_a_bad_record() -> None:
    for conversation in (say("\ud83d", "fine"), say("fine", "\ud83d")):
        with pytest.raises(BadRecord, match="half a character"):
            sample_of(conversation)
