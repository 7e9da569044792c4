"""Readers of captions and of questions about images: MiniGPT-4, COCO, A-OKVQA, OCR-VQA."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import urlsplit

from lite.errors import BadInput
from qlora.data.conversation import BadRecord, Conversation, Exchange, ImageRef
from qlora.data.formats.image_keys import check_other_keys
from qlora.data.formats.pools import CAPTION, WHY
from qlora.data.formats.reader import (
    EMPTY_ANSWER,
    NO_ANSWER,
    Reader,
    question_and_answer,
    text,
    texts,
)
from qlora.data.records import Records


def _about(id: str, image: ImageRef, question: str, answer: str) -> Conversation:
    return Conversation(id, (Exchange(*question_and_answer(question, answer), images=(image,)),))


class MiniGpt4(Reader):
    """MiniGPT-4's second stage, `filter_cap.json`: `annotations` of `image_id` and `caption`."""

    name = "minigpt4"
    texts = frozenset(("caption",))

    @classmethod
    def matches(cls, record: dict[str, Any]) -> bool:
        first = _first(record.get("annotations"))
        return "images" not in record and "image_id" in first and "caption" in first

    def select(self, source: Records | dict[str, Any]) -> Sequence[Any] | Records:
        if isinstance(source, Records):
            return source
        return self.listed(source, "annotations")

    def read(self, record: dict[str, Any], id: str, random: random.Random) -> Conversation:
        number = record.get("image_id")
        if not isinstance(number, (str, int)):
            raise BadRecord("no image_id")
        path, caption = f"image/{number}.jpg", text(record, "caption")
        check_other_keys(record, [path], self.texts)
        return _about(str(number), self.image(path), random.choice(CAPTION), caption)


class Coco(Reader):
    """COCO captions in all three forms: Karpathy's lists, his `dataset_coco.json`, the official.

    Of several captions for an image one is drawn. Of `dataset_coco.json` the splits `train` and
    `restval` are read, of the official file each image that has a caption.
    """

    name = "coco"
    texts = frozenset(("caption",))

    @classmethod
    def matches(cls, record: dict[str, Any]) -> bool:
        if "images" in record:
            return "caption" in _first(record.get("annotations")) or "sentences" in _first(
                record["images"]
            )
        return "image" in record and "caption" in record and "conversations" not in record

    def select(self, source: Records | dict[str, Any]) -> Sequence[Any] | Records:
        if isinstance(source, Records):
            return source
        images = self.listed(source, "images")
        if "annotations" in source:
            return _with_captions(images, self.listed(source, "annotations"))
        return [_of_karpathy(one) for one in images if one.get("split") in ("train", "restval")]

    def read(self, record: dict[str, Any], id: str, random: random.Random) -> Conversation:
        captions = texts(record.get("caption"))
        if not captions:
            raise BadRecord(EMPTY_ANSWER)
        answer, question = random.choice(captions), random.choice(CAPTION)
        name = str(record.get("image_id") or id)
        check_other_keys(record, [record.get("image")], self.texts)
        return _about(name, self.image(record.get("image")), question, answer)


def _with_captions(images: list[Any], annotations: list[Any]) -> list[dict[str, Any]]:
    captions: dict[Any, list[Any]] = {}
    for one in annotations:
        captions.setdefault(one.get("image_id"), []).append(one.get("caption"))
    return [
        {"image_id": i["id"], "image": i.get("file_name"), "caption": captions[i["id"]]}
        for i in images
        if i.get("id") in captions
    ]


def _of_karpathy(image: dict[str, Any]) -> dict[str, Any]:
    """Without `filepath` (Flickr8k and 30k) the file name is all there is."""
    folder, name = image.get("filepath"), image.get("filename")
    sentences = image.get("sentences") or ()
    return {
        "image_id": image.get("cocoid", image.get("imgid")),
        "image": f"{folder}/{name}" if folder else name,
        "caption": [one.get("raw") for one in sentences if isinstance(one, dict)],
    }


class AOkVqa(Reader):
    """A-OKVQA: a question, one of four choices, and three rationales.

    The answer is "The answer is {choice}. Because {rationales}", as Multimodal-GPT words it. The
    official file has no `image`, the picture is COCO's by `image_id`; LAVIS' copy has.
    """

    name = "aokvqa"
    texts = frozenset(("question", "choices", "rationales", "direct_answers"))

    @classmethod
    def matches(cls, record: dict[str, Any]) -> bool:
        return "choices" in record and ("rationales" in record or "correct_choice_idx" in record)

    def read(self, record: dict[str, Any], id: str, random: random.Random) -> Conversation:
        choices, chosen = record.get("choices"), record.get("correct_choice_idx")
        if not isinstance(choices, list) or not isinstance(chosen, int):
            raise BadRecord(NO_ANSWER)  # the test split
        if not 0 <= chosen < len(choices) or not isinstance(choices[chosen], str):
            raise BadRecord("choice that is not listed")
        asked = f"{text(record, 'question')} {random.choice(WHY)}"
        answer = f"The answer is {choices[chosen].strip()}."
        if reasons := " ".join(texts(record.get("rationales"))):
            answer += f" Because {reasons}"
        question_and_answer(text(record, "question"), choices[chosen].strip())
        return _about(id, self._picture(record), asked, answer)

    def _picture(self, record: dict[str, Any]) -> ImageRef:
        image = record.get("image")
        if not image:
            number = record.get("image_id")
            if not isinstance(number, int):
                raise BadRecord("no image_id")
            image = f"{record.get('split', 'train')}2017/{number:012d}.jpg"
        check_other_keys(record, [image], self.texts)
        return self.image(image)


class OcrVqa(Reader):
    """OCR-VQA: books' covers, with several questions of which one is drawn.

    As downloaded it is an object keyed by the image's name, whose extension is that of `imageURL`;
    of it the split 1 (train) is read, and books whose cover is not there are left out, since no
    download has got them all. Multimodal-GPT's own list has a `filename` in each record instead.
    """

    name = "ocr_vqa"
    texts = frozenset(("questions", "answers", "title", "genre", "authorName"))

    @classmethod
    def matches(cls, record: dict[str, Any]) -> bool:
        if "questions" not in record and record:
            record = next(iter(record.values()))
        return isinstance(record, dict) and {"questions", "answers"} <= record.keys()

    def select(self, source: Records | dict[str, Any]) -> Sequence[Any] | Records:
        if isinstance(source, Records):
            return source
        books = [
            {**book, "id": key, "filename": f"{key}{_extension(book.get('imageURL'))}"}
            for key, book in source.items()
            if isinstance(book, dict) and book.get("split") == 1
        ]
        found = [book for book in books if self.images.has(book["filename"])]
        if books and not found:
            raise BadInput(
                f"None of the {len(books)} covers of the OCR-VQA data (the first is "
                f"{books[0]['filename']}) is in {self.images.folder}; give their folder as images."
            )
        if len(found) < len(books):
            self.repairs["book without a cover left out"] += len(books) - len(found)
        return found

    def read(self, record: dict[str, Any], id: str, random: random.Random) -> Conversation:
        questions, answers = record.get("questions"), record.get("answers")
        if not isinstance(questions, list) or not isinstance(answers, list):
            raise BadRecord(NO_ANSWER)
        if len(questions) != len(answers):
            raise BadRecord("questions and answers differ in number")
        pairs = [
            (q.strip(), a.strip())
            for q, a in zip(questions, answers, strict=True)
            if isinstance(q, str) and isinstance(a, str) and q.strip() and a.strip()
        ]
        if not pairs:
            raise BadRecord(EMPTY_ANSWER)
        image = record.get("filename") or record.get("image")
        check_other_keys(record, [image], self.texts)
        return _about(id, self.image(image), *random.choice(pairs))


def _extension(url: Any) -> str:
    suffix = PurePosixPath(urlsplit(url).path).suffix if isinstance(url, str) else ""
    return suffix or ".jpg"


def _first(value: Any) -> dict[str, Any]:
    return value[0] if isinstance(value, list) and value and isinstance(value[0], dict) else {}
