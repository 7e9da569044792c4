"""Threads are measured once for a model and a machine, unless somebody named a number."""

from pathlib import Path
from typing import Any

import pytest

import lite
from lite.bundle.bundle import Bundle
from lite.runtime import threads
from lite.runtime.cpu import cpu_features, cpu_name, usable_cores


@pytest.fixture
def bundle(bundles: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bundle:
    """A bundle that counts as large, on a machine of 2 cores that knows nothing yet."""
    monkeypatch.setenv("MMGPT_LITE_CACHE", str(tmp_path))
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(threads, "MIN_DECODER_BYTES", 0)
    monkeypatch.setattr(threads, "usable_cores", lambda: 2)
    return Bundle.open(bundles())


def test_the_first_use_measures_and_the_next_remembers(bundle: Bundle) -> None:
    said: list[str] = []
    chosen = threads.choose_threads(bundle, "cpu", said.append)
    assert chosen in (1, 2)
    assert len(said) == 1
    assert threads.choose_threads(bundle, "cpu", said.append) == chosen
    assert len(said) == 1


def test_a_model_is_opened_with_what_was_remembered(bundle: Bundle) -> None:
    note = threads._note(bundle)
    note.parent.mkdir()
    note.write_text("2\n")
    assert lite.load(bundle.folder).decoder.threads == 2
    assert lite.load(bundle.folder, threads=1).decoder.threads == 1


def test_a_named_number_is_never_overruled(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert threads.choose_threads(bundle, "cpu") is None
    assert lite.load(bundle.folder).decoder.threads == 1
    assert not threads._note(bundle).exists()


def test_small_models_are_not_measured(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "MIN_DECODER_BYTES", 1 << 40)
    assert threads.choose_threads(bundle, "cpu") is None


@pytest.mark.parametrize("content", [b"", b"0", b"3", b"many", b"\xff\xfe"])
def test_a_damaged_note_is_measured_again(content: bytes, bundle: Bundle) -> None:
    note = threads._note(bundle)
    note.parent.mkdir()
    note.write_bytes(content)
    assert threads.choose_threads(bundle, "cpu") in (1, 2)
    assert note.read_text().strip() in ("1", "2")


def test_a_cache_that_cannot_be_written_only_costs_time(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("MMGPT_LITE_CACHE", str(tmp_path / "file"))
    assert threads.choose_threads(bundle, "cpu") in (1, 2)


def test_the_fewest_threads_that_are_about_as_fast_win() -> None:
    assert threads.fastest({8: 1.0, 6: 1.01, 4: 1.02, 2: 1.5}) == 4
    assert threads.fastest({8: 1.0, 6: 1.2}) == 8
    assert threads.fastest({8: 1.3, 6: 1.0}) == 6


def test_hopeless_numbers_are_not_tried(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    steps = iter([1.0, 1.1, 1.6, 9.9])
    monkeypatch.setattr(threads, "_step", lambda decoder: next(steps))
    assert threads.measure(bundle, "cpu", [8, 6, 4, 2]) == {8: 1.0, 6: 1.1, 4: 1.6}


def test_candidates_are_shares_of_the_cores() -> None:
    assert threads.candidates(16) == [16, 12, 8, 4]
    assert threads.candidates(2) == [2, 1]
    assert threads.candidates(1) == [1]


def test_the_processor_is_known() -> None:
    assert cpu_name()
    assert usable_cores() >= 1
    assert isinstance(cpu_features(), frozenset)
