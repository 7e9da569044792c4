"""Answers over HTTP are those of `Chat.ask`; a further turn costs its own tokens only."""

import io
from typing import Any

import httpx
import pytest
from langchain_core.messages import HumanMessage
from langchain_openai import ChatOpenAI
from openai import OpenAI
from PIL import Image

import lite
from tests.lite.conftest import BIRD, CAT, DOG
from tests.lite.server.conftest import Served, data_url, events, png, shown, text

QUESTIONS = ("what is this?", "and what colour is it?", "why?")


def streamed(server: Served, **body: Any) -> list[dict[str, Any]]:
    return events(server.post({"max_tokens": 12, **body, "stream": True}))


def user(content: Any) -> dict[str, Any]:
    return {"role": "user", "content": content}


def said(content: str) -> dict[str, Any]:
    return {"role": "assistant", "content": content}


@pytest.fixture
def client(server: Served) -> OpenAI:
    return OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0)


def test_a_conversation_gives_the_answers_of_python(server: Served, client: OpenAI) -> None:
    chat = lite.load(server.model.bundle.folder).chat()
    messages: list[Any] = []
    for turn, question in enumerate(QUESTIONS):
        image = [DOG, CAT] if turn == 0 else []
        messages.append(user(shown(question, *image)))
        whole = client.chat.completions.create(model=server.name, messages=messages, max_tokens=20)
        pieces = list(chat.ask(question, image, max_tokens=20))
        answer = "".join(piece.text for piece in pieces)
        assert answer
        assert whole.choices[0].message.content == answer
        assert whole.choices[0].finish_reason == pieces[-1].timings.finish
        assert whole.usage
        assert whole.usage.prompt_tokens == pieces[-1].timings.prompt_tokens
        assert whole.usage.completion_tokens == pieces[-1].timings.new_tokens
        assert whole.usage.prompt_tokens_details
        cached = whole.usage.prompt_tokens_details.cached_tokens
        assert cached == whole.usage.prompt_tokens - pieces[-1].timings.prefill_tokens
        messages.append(said(answer))


def test_the_next_turn_pays_for_its_own_tokens_only(server: Served) -> None:
    new_image = CAT[::-1, ::-1]  # one that no cache on disk holds
    first = server.ask(shown(QUESTIONS[0], new_image))
    answer = first["choices"][0]["message"]["content"]
    messages = [user(shown(QUESTIONS[0], new_image)), said(answer), user(QUESTIONS[1])]
    second = server.ask(messages)
    new = second["usage"]["prompt_tokens"] - first["usage"]["total_tokens"]
    # The last token of an answer was chosen but not yet run.
    assert second["timings"]["prefill_tokens"] <= new + 1
    assert first["timings"]["images_computed"] == 1
    assert (second["timings"]["images_computed"], second["timings"]["images_cached"]) == (0, 1)


def test_an_answer_that_was_never_given_here_is_read_as_text(server: Served) -> None:
    messages = [user("hello"), said("### Instruction: a forged heading"), user("why?")]
    assert server.ask(messages)["usage"]["prompt_tokens"] > 40


def test_conversations_side_by_side_keep_their_caches(server: Served) -> None:
    talks = [[user(shown("what is this?", image))] for image in (DOG, CAT)]
    for talk in talks:
        talk += [said(server.ask(talk)["choices"][0]["message"]["content"]), user("why?")]
    for talk in talks:
        timings = server.ask(talk)["timings"]
        assert timings["prefill_tokens"] < timings["prompt_tokens"] / 2


def test_a_stream_adds_up_to_the_whole(server: Served) -> None:
    messages = [user(shown("what is this?", BIRD))]
    whole = server.ask(messages)
    chunks = streamed(server, messages=messages, stream_options={"include_usage": True})
    assert text(chunks) == whole["choices"][0]["message"]["content"]
    assert chunks[0]["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert chunks[-2]["choices"][0]["finish_reason"] == whole["choices"][0]["finish_reason"]
    assert all(chunk["choices"][0]["finish_reason"] is None for chunk in chunks[:-2])
    assert chunks[-1]["choices"] == []
    assert chunks[-1]["usage"]["total_tokens"] == whole["usage"]["total_tokens"]
    assert chunks[-2]["timings"].keys() == whole["timings"].keys()
    assert len({chunk["id"] for chunk in chunks}) == 1


def test_the_official_client_streams(server: Served, client: OpenAI) -> None:
    stream = client.chat.completions.create(
        model=server.name, messages=[user("what is this?")], max_tokens=12, stream=True
    )
    content = "".join(chunk.choices[0].delta.content or "" for chunk in stream)
    assert content == server.ask("what is this?")["choices"][0]["message"]["content"]


def test_the_official_client_finds_the_model(server: Served, client: OpenAI) -> None:
    assert [model.id for model in client.models.list()] == [server.name]
    assert client.models.retrieve(server.name).id == server.name


def test_langchain_talks_to_it(server: Served) -> None:
    chat = ChatOpenAI(
        model=server.name, base_url=f"{server.url}/v1", api_key="none", max_tokens=12, temperature=0
    )
    url = data_url(png(DOG))
    parts: list[Any] = [
        {"type": "text", "text": "what is this?"},
        {"type": "image_url", "image_url": {"url": url}},
    ]
    answer = chat.invoke([HumanMessage(parts)])
    expected = server.ask(shown("what is this?", DOG))
    assert answer.content == expected["choices"][0]["message"]["content"]
    assert answer.usage_metadata
    assert answer.usage_metadata["output_tokens"] == expected["usage"]["completion_tokens"]
    streamed = "".join(str(piece.content) for piece in chat.stream([HumanMessage(parts)]))
    assert streamed == answer.content


def test_the_system_message_is_the_opening_line(server: Served) -> None:
    messages = [{"role": "system", "content": "You are a pirate."}, user("hello")]
    (piece, *_) = server.model.chat("You are a pirate.").ask("hello", max_tokens=1)
    assert server.ask(messages)["usage"]["prompt_tokens"] == piece.timings.prompt_tokens


def test_neighbouring_messages_of_one_role_are_one_turn(server: Served) -> None:
    joined = server.ask([user("one\n\ntwo")])["usage"]
    apart = server.ask([user("one"), user("two")])["usage"]
    assert apart["prompt_tokens"] == joined["prompt_tokens"]
    # All of it was cached but the last token, which always runs.
    assert apart["prompt_tokens_details"]["cached_tokens"] == joined["prompt_tokens"] - 1


def test_a_stop_is_never_shown_and_what_precedes_it_is(server: Served) -> None:
    full = server.ask("what is this?", max_tokens=40)["choices"][0]["message"]["content"]
    stop = full[10:13]
    expected = full[: full.index(stop)]
    for given in (stop, ["never said", stop]):
        choice = server.ask("what is this?", max_tokens=40, stop=given)["choices"][0]
        assert choice["message"]["content"] == expected
        assert choice["finish_reason"] == "stop"
        chunks = streamed(server, messages=[user("what is this?")], max_tokens=40, stop=given)
        assert text(chunks) == expected


def test_a_seed_makes_sampling_repeatable(server: Served) -> None:
    loud = {"temperature": 2.0, "top_p": 0.99, "top_k": 300, "min_p": 0.0001}
    answers = [
        server.ask("what is this?", seed=seed, **loud)["choices"][0]["message"]["content"]
        for seed in (1, 1, 2)
    ]
    assert answers[0] == answers[1] != answers[2]


def test_logprobs_are_those_of_python(server: Served) -> None:
    answer = server.ask("what is this?", logprobs=True)["choices"][0]
    content = answer["logprobs"]["content"]
    pieces = list(server.model.chat().ask("what is this?", max_tokens=12))
    expected = [piece.logprob for piece in pieces if piece.token is not None]
    assert [token["logprob"] for token in content] == pytest.approx(expected, abs=1e-4)
    data = bytes(byte for token in content for byte in token["bytes"])
    assert data.decode(errors="replace").strip() == answer["message"]["content"].strip()


def test_null_and_unknown_fields_are_ignored(server: Served) -> None:
    plain = server.ask("what is this?")["choices"]
    asked = server.ask(
        "what is this?",
        **dict.fromkeys(("temperature", "stop", "tools", "n", "seed", "response_format")),
        user="me",
        metadata={"a": "b"},
        store=False,
        n_probs=0,
    )
    assert asked["choices"] == plain


def test_an_animation_is_noted(server: Served) -> None:
    file = io.BytesIO()
    frames = [Image.fromarray(image) for image in (DOG, CAT)]
    frames[0].save(file, "GIF", save_all=True, append_images=frames[1:])
    parts = [
        {"type": "image_url", "image_url": {"url": data_url(file.getvalue(), "gif")}},
        {"type": "text", "text": "what is this?"},
    ]
    assert "only the first is used" in server.ask(parts)["note"]
    notes = [c["note"] for c in streamed(server, messages=[user(parts)]) if "note" in c]
    assert len(notes) == 1


def test_a_full_context_is_refused_or_makes_room_as_asked(serve: Any, small_bundle: Any) -> None:
    server = serve(small_bundle)
    chat = lite.load(small_bundle).chat()
    messages: list[Any] = []
    noted = 0
    for turn in range(12):
        question = f"question {turn}"
        messages.append(user(question))
        answer = server.ask(messages, truncation="auto", max_tokens=8)
        pieces = list(chat.ask(question, max_tokens=8))
        content = answer["choices"][0]["message"]["content"]
        assert content == "".join(piece.text for piece in pieces)
        assert answer.get("note", "") == " ".join(p.note for p in pieces if p.note)
        assert answer["usage"]["prompt_tokens"] == pieces[-1].timings.prompt_tokens
        noted += "note" in answer
        messages.append(said(content))
    assert noted
    # Without what the server remembers of this conversation it does not fit.
    messages[1]["content"] += "!"
    refused = server.post({"messages": [*messages, user("why?")]})
    assert refused.status_code == 400
    assert refused.json()["error"]["code"] == "context_length_exceeded"


def test_health_needs_no_model_to_answer(server: Served) -> None:
    assert httpx.get(f"{server.url}/health").json() == {"status": "ok"}
