"""With a seed and a temperature the same conversation gets the same answer, whatever ran before."""

from collections.abc import Callable

import pytest

import lite
from tests.lite.conftest import CAT, DOG

SETTINGS = {"temperature": 1.5, "max_tokens": 12}


def tokens(chat: lite.Chat, question: str, image: object = None, **settings: object) -> list[int]:
    events = chat.ask(question, image, **{**SETTINGS, **settings})  # type: ignore[arg-type]
    return [event.token for event in events if event.token is not None]


@pytest.mark.parametrize("seed", range(4))
def test_a_seed_repeats_whatever_the_cache_holds(
    seed: int, model: Callable[..., lite.Model]
) -> None:
    here, answers = model(), []
    for before in (None, "what?", "what is this", "what is this? And that?"):
        if before:
            tokens(here.chat(), before, DOG)
        chat = here.chat()
        first = tokens(chat, "what is this?", DOG, seed=seed)
        if before:
            tokens(here.chat(), "something else", CAT)
        answers.append((first, tokens(chat, "and what colour?", seed=seed)))
    assert answers.count(answers[0]) == len(answers)
    assert len({*answers[0][0]}) > 1


def test_the_whole_prompt_is_prefilled_for_it(model: Callable[..., lite.Model]) -> None:
    chat = model().chat()
    tokens(chat, "what is this?", DOG)
    *_, last = chat.ask("and?", max_tokens=4, seed=1, temperature=1.0)
    assert last.timings.prefill_tokens == last.timings.prompt_tokens
    *_, greedy = chat.ask("and?", max_tokens=4, seed=1)
    assert greedy.timings.prefill_tokens < greedy.timings.prompt_tokens
