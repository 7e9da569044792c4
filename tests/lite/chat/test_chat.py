"""A conversation is what was shown: later turns, stops, interruptions and full contexts."""

import io
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from PIL import Image

import lite
from lite.chat.answer import StreamEvent
from lite.chat.chat import Chat
from lite.chat.sampling import Sampler
from lite.errors import BadInput
from tests.lite.conftest import CAT, DOG

EOS = 2
# Images of three turns.
CONVERSATIONS = {
    "one image": [DOG, None, None],
    "an image in turn 2": [DOG, CAT, None],
    "the first image in turn 2": [None, DOG, None],
    "two images at once": [[DOG, CAT], None, [CAT]],
    "no image": [None, [], ()],
}
QUESTIONS = ["what is this?", "et ça, 🐕?", "what colour is it?"]


class Script:
    """Answers of chosen tokens; the rest of the chat is real."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, model: lite.Model) -> None:
        self._tokenizer, self._left = model.tokenizer, list[int]()
        monkeypatch.setattr(Sampler, "__call__", lambda *_: self._left.pop(0))

    def __call__(self, *parts: str | int) -> list[int]:
        """Say these texts and tokens next; returns the ids."""
        ids: list[int] = []
        for part in parts:
            encode = self._tokenizer.encode
            ids += encode([part], begin=False) if isinstance(part, str) else [part]
        self._left = ids.copy()
        return ids


@pytest.fixture
def here(model: Callable[..., lite.Model]) -> lite.Model:
    return model()


@pytest.fixture
def say(monkeypatch: pytest.MonkeyPatch, here: lite.Model) -> Script:
    return Script(monkeypatch, here)


def shown(pieces: Any) -> str:
    return "".join(piece.text for piece in pieces)


def tokens(pieces: list[StreamEvent]) -> list[int]:
    return [piece.token for piece in pieces if piece.token is not None]


@pytest.mark.parametrize("conversation", CONVERSATIONS)
@pytest.mark.parametrize("variant", ["base", "preceding"])
def test_a_turn_from_the_cache_equals_the_same_turn_from_scratch(
    variant: str, conversation: str, model: Callable[..., lite.Model]
) -> None:
    cached, scratch = model(variant), model(variant)
    chat, again = cached.chat(), scratch.chat()
    for question, image in zip(QUESTIONS, CONVERSATIONS[conversation], strict=True):
        answer = list(chat.ask(question, image, max_tokens=8))
        scratch.decoder.logits([1])  # forgets everything
        repeated = list(again.ask(question, image, max_tokens=8))
        assert tokens(answer) == tokens(repeated)
        ids, images = chat.prompt()
        logits = cached.decoder.logits(ids, images)
        assert cached.decoder.computed <= 1
        scratch.decoder.logits([1])
        np.testing.assert_allclose(logits, scratch.decoder.logits(ids, images), atol=1e-4)


def test_a_turn_costs_only_its_own_new_tokens(here: lite.Model, say: Script) -> None:
    chat = here.chat()
    say("two dogs", EOS)
    list(chat.ask("what is this?", DOG))
    before = len(chat.prompt()[0])
    say("red", EOS)
    *_, last = chat.ask("what colour?")
    assert last.timings.prefill_tokens == last.timings.prompt_tokens - before
    assert last.timings.images_computed == 0


def test_the_end_token_ends_an_answer_and_is_not_shown(here: lite.Model, say: Script) -> None:
    chat, ids = here.chat(), say("two dogs 🐕", EOS)
    pieces = list(chat.ask("what?", DOG))
    assert shown(pieces) == chat.exchanges[0].answer == "two dogs 🐕"
    assert tokens(pieces) == chat.exchanges[0].answer_ids == ids[:-1]
    assert pieces[-1].timings.finish == "stop"
    assert pieces[-1].timings.new_tokens == len(ids) - 1
    assert all(piece.logprob < 0 for piece in pieces if piece.token is not None)


def test_an_answer_that_ends_at_once_still_reports(here: lite.Model, say: Script) -> None:
    say(EOS)
    (piece,) = here.chat().ask("what?")
    assert (piece.text, piece.token, piece.timings.finish) == ("", None, "stop")


def test_the_longest_answer_is_kept_to(here: lite.Model, say: Script) -> None:
    chat, ids = here.chat(), say("two dogs sit on the table")
    pieces = list(chat.ask("what?", max_tokens=np.int64(3)))
    assert tokens(pieces) == ids[:3]
    assert pieces[-1].timings.finish == "length"


@pytest.mark.parametrize("heading", ["### Image:", "### Instruction:", "### Response:"])
@pytest.mark.parametrize("answer", ["two dogs", ""])
def test_a_new_turn_in_the_answer_ends_it_and_is_never_seen(
    answer: str, heading: str, here: lite.Model, say: Script
) -> None:
    chat, kept = here.chat(), say(answer)
    say(answer, f"\n\n{heading}\nand more")
    pieces = list(chat.ask("what?"))
    assert shown(pieces) == chat.exchanges[0].answer == answer
    assert chat.exchanges[0].answer_ids == kept
    assert pieces[-1].timings.finish == "stop"


def test_a_heading_right_after_the_responses_heading_is_a_new_turn(
    here: lite.Model, say: Script
) -> None:
    chat = here.chat()
    say("\n### Instruction:\nwhat?")
    assert shown(chat.ask("what?")) == ""
    assert chat.exchanges[0].answer_ids == []


@pytest.mark.parametrize("text", ["a\n\n### Im", "# title\n\n## part\n\n", "x\n\n###\n\n###", "#"])
def test_what_only_looked_like_a_new_turn_is_shown_in_the_end(
    text: str, here: lite.Model, say: Script
) -> None:
    chat, ids = here.chat(), say(text, EOS)
    assert shown(chat.ask("what?")) == chat.exchanges[0].answer == text
    assert chat.exchanges[0].answer_ids == ids[:-1]


def test_leading_blanks_are_not_shown_but_stay_in_the_context(
    here: lite.Model, say: Script
) -> None:
    chat, ids = here.chat(), say(" \n two", EOS)
    assert shown(chat.ask("what?")) == "two"
    assert chat.exchanges[0].answer_ids == ids[:-1]


def test_a_reader_that_stops_early_keeps_what_it_was_shown(here: lite.Model, say: Script) -> None:
    chat, kept = here.chat(), say("two dogs")
    say("two dogs", "\n\n### Res")  # held back: it may open a new turn
    pieces = chat.ask("what?")
    seen = shown(piece for piece in [next(pieces) for _ in range(len(kept) + 5)])
    pieces.close()
    assert seen == chat.exchanges[0].answer == "two dogs"
    assert chat.exchanges[0].answer_ids == kept


def test_half_a_character_is_not_kept(here: lite.Model, say: Script) -> None:
    chat, kept = here.chat(), say("red")
    say("red🐕")
    pieces = chat.ask("what?")
    for _ in range(len(kept) + 2):
        next(pieces)
    pieces.close()
    assert chat.exchanges[0].answer_ids == kept
    say("🐕")
    assert shown(here.chat().ask("what?", max_tokens=2)) == "\ufffd"


def test_an_interrupted_answer_goes_on_in_the_next_turn(
    here: lite.Model, model: Callable[..., lite.Model]
) -> None:
    chat, fresh = here.chat(), model().chat()
    pieces = chat.ask("what is this?", DOG)
    for _ in range(4):
        next(pieces)
    pieces.close()
    fresh.exchanges = [*chat.exchanges]
    first, second = (tokens(list(c.ask("and?", max_tokens=6))) for c in (chat, fresh))
    assert first == second


@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError])
def test_a_question_that_fails_leaves_no_trace(
    error: type[BaseException], here: lite.Model, say: Script
) -> None:
    chat = here.chat()
    say("red", EOS)
    list(chat.ask("what?"))

    def stop(*_: Any) -> None:
        raise error

    with pytest.raises(error):
        list(chat.ask("again?", DOG, progress=stop))
    with pytest.raises(BadInput):
        list(chat.ask("again?", b"no image"))
    assert [e.question for e in chat.exchanges] == ["what?"]
    say("blue", EOS)
    assert shown(chat.ask("and?")) == "blue"


@pytest.mark.parametrize(
    ("question", "options", "words"),
    [
        ("", {}, "The question is empty"),
        (" \n\t", {}, "The question is empty"),
        ("half \ud83d", {}, "half a character"),
        ("x", {"temperature": "hot"}, "unknown or of the wrong type"),
        ("x", {"beams": 4}, "unknown or of the wrong type"),
        ("x", {"top_p": 2.0}, "top_p is 2.0"),
        ("x", {"max_tokens": 0}, "max_tokens is 0"),
        ("x", {"max_tokens": 1.5}, "max_tokens is 1.5; give a whole number from 1, or None"),
        ("x", {"max_tokens": "9"}, "max_tokens is 9; give a whole number"),
        ("x", {"stop": "x"}, "stop must be a list"),
        ("x", {"stop": 5}, "stop must be a list"),
        ("x", {"stop": [1]}, "stop must be a list"),
        ("x", {"image_path": "a.png"}, "'image_path'.*; beside those of Chat.ask there are temp"),
        (None, {}, "The question is a NoneType; give a text"),
        (b"x", {}, "The question is a bytes; give a text"),
    ],
)
def test_bad_questions_are_refused_before_anything_runs(
    question: str, options: dict[str, Any], words: str, here: lite.Model
) -> None:
    with pytest.raises(BadInput, match=words):
        here.chat().ask(question, **options)


def test_sampling_is_one_argument_whose_fields_may_stand_alone(here: lite.Model) -> None:
    hot = lite.Sampling(temperature=2.0, seed=1)
    settings: list[dict[str, Any]] = [
        {"sampling": hot},
        {"temperature": 2.0, "seed": 1},
        {"sampling": lite.Sampling(temperature=9.0, seed=1), "temperature": 2.0},
    ]
    first, *others = (tokens([*here.chat().ask("what?", max_tokens=8, **s)]) for s in settings)
    assert others == [first, first]


def test_no_limit_ends_an_answer_where_the_context_does(small: lite.Model, say: Script) -> None:
    say(*[50] * small.context)
    *_, last = small.chat().ask("what?", max_tokens=None)
    assert last.timings.finish == "length"
    assert last.timings.prompt_tokens + last.timings.new_tokens == small.context


@pytest.mark.parametrize("variant", ["base", "preceding"])
def test_where_only_the_last_image_is_attended_to_the_person_hears_so_once(
    variant: str, model: Callable[..., lite.Model]
) -> None:
    chat, notes = model(variant).chat(), []
    for images in ([DOG], [DOG, CAT], [CAT, DOG]):
        notes += [e.note for e in chat.ask("what?", images, max_tokens=1) if e.note]
    assert len(notes) == (1 if variant == "preceding" else 0)
    assert all("attends to the last one only" in note for note in notes)


def test_images_come_as_files_and_buffers_too(here: lite.Model, tmp_path: Any) -> None:
    Image.fromarray(DOG).save(tmp_path / "dog.png")
    data = (tmp_path / "dog.png").read_bytes()
    with (tmp_path / "dog.png").open("rb") as file:
        (expected, *found) = here.encode_images([DOG, io.BytesIO(data), memoryview(data), file])
    assert [features.key for features in found] == [expected.key] * 3


def test_an_animation_is_said_to_be_one(here: lite.Model, tmp_path: Any) -> None:
    frames = [Image.fromarray(picture) for picture in (DOG, CAT)]
    frames[0].save(tmp_path / "party.gif", save_all=True, append_images=frames[1:])
    notes = [p.note for p in here.chat().ask("what?", tmp_path / "party.gif", max_tokens=1)]
    assert "only the first is used" in notes[0]


def test_two_chats_of_one_model_do_not_disturb_each_other(here: lite.Model) -> None:
    alone = list(steps(here.chat()))
    together = zip(steps(here.chat()), steps(here.chat()), strict=True)
    assert list(together) == list(zip(alone, alone, strict=True))


def steps(chat: Chat) -> Any:
    for question, image in zip(QUESTIONS, [DOG, None, CAT], strict=True):
        yield tokens(list(chat.ask(question, image, max_tokens=5)))


def test_an_answer_goes_on_from_a_prefix(here: lite.Model, say: Script) -> None:
    chat = here.chat()
    say(" and tail\n\n### Instruction:")
    assert shown(chat.ask("why?", prefix="the head")) == " and tail"
    (exchange,) = chat.exchanges
    assert exchange.answer == "the head and tail"
    assert here.tokenizer.decode(exchange.answer_ids) == "the head and tail"
    say("a stop here")
    assert shown(chat.ask("why?", prefix="begun ", stop=["stop"])) == "a "
    assert chat.exchanges[1].answer == "begun a "
    assert here.tokenizer.decode(chat.exchanges[1].answer_ids) == "begun a "


def test_a_prefix_whose_question_fails_leaves_no_trace(here: lite.Model) -> None:
    chat = here.chat()
    with pytest.raises(BadInput):
        list(chat.ask("7" * 3000, prefix="the head"))
    assert chat.exchanges == []
