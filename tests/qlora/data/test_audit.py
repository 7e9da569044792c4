"""The audit: what a mix would teach about the length of answers, and what is broken in it."""

import io
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from qlora.data.audit import Audit, audit
from qlora.data.audit_report import bars, render
from qlora.data.conversation import BadRecord, Conversation, Exchange, ImageRef
from qlora.data.lengths import BIN_NAMES, BINS, Lengths, count_words
from qlora.data.mixture import MixReport, Mixture
from tests.qlora.data.small import PICTURE, SmallSet, damaged_image, fixture_tokenizer, say, words

TOKENIZER = fixture_tokenizer()


def answering(name: str, lengths: Sequence[int], weight: float = 1.0) -> SmallSet:
    """A set whose answers have these lengths in words."""
    return SmallSet(name, [say(f"{name} {i}", words(n)) for i, n in enumerate(lengths)], weight)


def looked(*sets: SmallSet, limit: int | None = None) -> Audit:
    return audit({"text": Mixture([s.all for s in sets], 0, "text")}, TOKENIZER, limit)


def distribution(found: Audit, number: int = 0) -> Lengths:
    lengths = found.sets[number].lengths
    assert lengths is not None
    return lengths


def printed(found: Audit, width: int = 100) -> str:
    console = Console(file=io.StringIO(), width=width)
    console.print(render(found))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("", 0),
        ("yes", 1),
        (" Yes. ", 1),
        ("42!", 1),
        ("(a) b-c d's", 3),
        ("- red\n- blue", 2),
        ("...", 0),
        ("一只红色的狗", 6),
        ("これは犬です", 6),
        ("GPT是什么", 4),
        ("naïve Ärger", 2),
        ("한국어 문장", 2),
    ],
)
def test_words_are_counted_in_any_script(text: str, count: int) -> None:
    assert count_words(text) == count


def test_the_lengths_of_a_set_are_what_they_are() -> None:
    found = looked(answering("a", [1, 1, 3, 4, 7, 12, 30, 60, 120, 240]))
    lengths = distribution(found)
    assert lengths.words == (1, 7, 120)
    assert (lengths.one_word, lengths.short) == (pytest.approx(0.2), pytest.approx(0.4))
    assert lengths.histogram == pytest.approx((0.2, 0.2, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1))
    assert (found.sets[0].records, found.sets[0].answers) == (10, 10)
    assert len(BINS) == len(BIN_NAMES)


def test_tokens_are_those_of_the_model() -> None:
    found = looked(SmallSet("a", [say("q", "two dogs")]))
    size = len(TOKENIZER.encode(["two dogs"], begin=False))
    assert distribution(found).tokens == (size, size, size)


def test_only_trained_answers_count() -> None:
    given = (Exchange("a", "no", weight=0), Exchange("b", "a longer answer"))
    found = looked(SmallSet("a", [Conversation("x", given)]))
    assert found.sets[0].answers == 1
    assert distribution(found).one_word == 0


def test_the_mixture_is_weighed_as_training_weighs_it() -> None:
    terse, long = answering("terse", [1] * 10, weight=0.5), answering("long", [50] * 15)
    found = looked(terse, long)
    assert [one.share for one in found.sets] == [pytest.approx(0.25), pytest.approx(0.75)]
    assert found.mixture is not None
    assert found.mixture.one_word == pytest.approx(0.25)
    assert found.mixture.words == (1, 50, 50)


def test_streams_have_equal_parts_of_the_mixture_whatever_their_size() -> None:
    streams = {
        kind: Mixture([answering(kind, [n] * count).all], 0, kind)
        for kind, n, count in (("images", 1, 5), ("text", 50, 500))
    }
    found = audit(streams, TOKENIZER)
    assert [one.share for one in found.sets] == [0.5, 0.5]
    assert found.mixture is not None
    assert found.mixture.one_word == pytest.approx(0.5)


def test_the_answers_of_a_dialogue_share_its_voice() -> None:
    dialogue = say("q", *["yes"] * 9, words(40))
    found = looked(SmallSet("a", [dialogue, *(say(f"{i}", words(40)) for i in range(9))]))
    assert found.mixture is not None
    assert distribution(found).one_word == pytest.approx(9 / 19)
    assert found.mixture.one_word == pytest.approx(0.09)


def test_a_set_of_one_word_answers_is_warned_of() -> None:
    found = looked(answering("vqa", [1] * 6 + [3] * 4), answering("long", [40] * 490))
    assert len(found.warnings) == 1
    assert found.warnings[0].startswith("60 % of the answers in vqa are one word")
    assert "2.0 % of the mixture" in found.warnings[0]


def test_a_set_that_hardly_counts_and_one_of_long_answers_are_not() -> None:
    assert looked(answering("vqa", [1] * 4), answering("long", [40] * 496)).warnings == []
    assert looked(answering("long", [1] * 9 + [40] * 91)).warnings == []


def test_a_mixture_of_short_answers_is_warned_of_as_a_whole() -> None:
    (warning,) = looked(answering("a", [1] * 11 + [40] * 89)).warnings
    assert warning.startswith("11 % of the mixture's answers are one word")
    (warning,) = looked(answering("a", [3] * 26 + [40] * 74)).warnings
    assert "fewer than 5 words" in warning


def test_copies_are_counted_by_texts_and_images() -> None:
    other = ImageRef("other.png", data=PICTURE.read())
    same = say("what?", words(20), images=1)
    (exchange,) = same.exchanges
    elsewhere = Conversation("y", (Exchange(exchange.question, exchange.answer, images=(other,)),))
    found = looked(SmallSet("a", [same, same, elsewhere, say("why?", words(20), images=1)]))
    assert found.sets[0].duplicates == 1
    assert found.sets[0].images == 2
    assert found.warnings == [
        "25 % of the records looked at in a repeat another one; remove the copies."
    ]


def test_broken_images_are_found_by_decoding(tmp_path: Path) -> None:
    bad, gone = damaged_image(tmp_path), ImageRef("gone.png", tmp_path / "gone.png")
    records = [
        Conversation(ref.name, (Exchange("what?", words(20), images=(ref,)),))
        for ref in (PICTURE, bad, bad, gone)
    ]
    records[2] = Conversation("again", (Exchange("why?", words(20), images=(bad,)),))
    found = looked(SmallSet("a", records))
    assert sorted(name for name, _ in found.sets[0].broken) == ["damaged.png", "gone.png"]
    assert found.sets[0].images == 3
    assert "2 of 3 images in a cannot be decoded" in found.warnings[0]


def test_records_that_cannot_be_read_are_counted_by_reason() -> None:
    class Refusing(SmallSet):
        def conversation(self, index: int, epoch: int) -> Conversation:
            if index < 2:
                raise BadRecord("no answer")
            return super().conversation(index, epoch)

    records = [say("q", words(9))] * 2 + [say("q", "\ud83d dog"), say("q", words(9))]
    found = looked(Refusing("a", records))
    assert found.sets[0].unusable == {"no answer": 2, "text with half a character": 1}
    assert (found.sets[0].looked_at, found.sets[0].answers) == (4, 1)
    assert looked(Refusing("none", records[:2])).mixture is None


def test_a_limit_draws_records_evenly_and_reports_each() -> None:
    chosen = SmallSet("a", [say(str(i), words(i // 10 + 1)) for i in range(1000)])
    seen: list[tuple[str, int, int]] = []
    found = audit(
        {"text": Mixture([chosen.all], 0, "text")},
        TOKENIZER,
        limit=200,
        seed=3,
        progress=lambda *step: seen.append(step),
    )
    assert (found.sets[0].looked_at, found.sets[0].records) == (200, 1000)
    assert len(set(chosen.asked)) == 200
    assert seen == [("a", i + 1, 200) for i in range(200)]
    assert abs(distribution(found).words[1] - 50) < 12


def test_what_is_not_trained_and_what_the_mix_does_is_told() -> None:
    given = (Exchange("a", words(9), weight=0), Exchange("b", words(9)))
    streams = {"text": Mixture([SmallSet("a", [Conversation("x", given)]).all], 0, "text")}
    mix = MixReport("Mix paired: so and so.", "data.mix=paired repeats.")
    found = audit(streams, TOKENIZER, repairs={"a": {"marker read as text": 2}, "b": {}}, mix=mix)
    assert (found.sets[0].answers, found.sets[0].context_only) == (1, 1)
    assert found.warnings == ["data.mix=paired repeats."]
    assert found.to_json()["repairs"] == {"a": {"marker read as text": 2}}
    shown = printed(found)
    assert "In a: 2 marker read as text." in shown
    assert "a: answers marked not to be trained: 1." in shown
    assert "Mix paired: so and so." in shown


def test_the_report_shows_sets_histograms_and_warnings() -> None:
    long = SmallSet("long [bold]\x1b[2J", [say(str(i), words(30)) for i in range(8)])
    streams = {"text": Mixture([answering("vqa", [1] * 8).all, long.all], 0, "text")}
    found = audit(streams, TOKENIZER, left_out={"vqa": {"missing image": 3}, "long": {}})
    shown = printed(found, 110)
    # A name is shown as it is: it neither formats the table nor commands the terminal.
    assert "long [bold]" in shown
    assert "\x1b" not in shown
    assert "100 %" in shown
    assert "█" in shown
    assert "Left out of vqa: 3 missing image." in shown
    assert shown.count("Warning: ") == len(found.warnings) == 2
    assert "1, 2-4, 5-9" in shown
    assert "30 / 30 / 30" in shown


def test_a_sound_mixture_is_called_so() -> None:
    assert "Nothing here would shorten replies." in printed(looked(answering("a", [40] * 5)))


def test_the_report_fits_a_common_terminal() -> None:
    many = (answering("complex_reasoning_77k", [150] * 9), answering("aokvqa_v1p0_train", [9]))
    found = looked(*many)
    for one in found.sets:
        one.records = one.looked_at = one.answers = one.images = 123_456
    shown = printed(found, 80)
    assert all(len(line) <= 80 for line in shown.splitlines())
    assert "…" not in shown
    assert shown.count("complex_reasoning_77k") == shown.count("aokvqa_v1p0_train") == 2


def test_a_set_in_two_streams_is_told_apart() -> None:
    both = answering("both", [40] * 4)
    streams = {kind: Mixture([both.all], 0, kind) for kind in ("images", "text")}
    shown = printed(audit(streams, TOKENIZER))
    assert "both (images)" in shown
    assert "both (text)" in shown


def test_the_json_holds_all_of_it() -> None:
    found = looked(answering("a", [1] * 3), answering("b", [40] * 3))
    plain = json.loads(json.dumps(found.to_json()))
    assert [one["name"] for one in plain["sets"]] == ["a", "b"]
    assert plain["sets"][0]["lengths"]["one_word"] == 1
    assert plain["mixture"]["one_word"] == pytest.approx(0.5)
    assert plain["warnings"] == found.warnings
    assert len(plain["histogram_bins_words"]) == len(plain["mixture"]["histogram"])


def test_a_bar_is_as_high_as_its_share() -> None:
    assert bars((0, 0.5, 1, 0.001)) == " ▄█▁"
    assert bars(np.zeros(3).tolist()) == "   "
