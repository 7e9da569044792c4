"""Small data sets in memory, and the fixture model's tokenizer."""

import random
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from lite.text.tokenizer import Tokenizer
from qlora.checkpoints.tokenizer_files import read_tokenizer
from qlora.data.conversation import Conversation, Exchange, ImageRef
from qlora.data.shuffle import random_of
from tests.conftest import FIXTURE

PICTURE = ImageRef("dog.png", next(iter(sorted((FIXTURE / "images").glob("*.png")))))


@cache
def fixture_tokenizer() -> Tokenizer:
    base = read_tokenizer(FIXTURE / "llama")
    added = {"<|endofchunk|>": base.size, "<image>": base.size + 1, "<PAD>": base.size + 2}
    return Tokenizer(base.tokenizer, {"<s>": base.bos, "</s>": base.eos, **added})


class SmallSet:
    """A data set whose records are given."""

    def __init__(
        self, name: str, conversations: Sequence[Conversation], weight: float = 1.0
    ) -> None:
        self.name, self.weight, self._conversations = name, weight, conversations
        self.asked: list[tuple[int, int]] = []

    def __len__(self) -> int:
        return len(self._conversations)

    def conversation(self, index: int, epoch: int) -> Conversation:
        self.asked.append((index, epoch))
        return self._conversations[index]

    @property
    def all(self) -> tuple["SmallSet", range]:
        """The set with all its records, as a mixture takes it."""
        return self, range(len(self))


def numbered(name: str, count: int, weight: float = 1.0) -> SmallSet:
    return SmallSet(name, [say(f"q{i}", "an answer", id=str(i)) for i in range(count)], weight)


def say(question: str, *answers: str, images: int = 0, id: str = "x") -> Conversation:
    """A conversation whose first question shows pictures."""
    first, *rest = answers
    exchanges = [Exchange(question, first, images=(PICTURE,) * images)]
    return Conversation(id, (*exchanges, *(Exchange("and then?", a) for a in rest)))


def words(count: int, chance: random.Random | None = None) -> str:
    chance = chance or random_of("words", count)
    return " ".join(chance.choice(("red", "house", "dog", "the", "runs")) for _ in range(count))


def damaged_image(folder: Path) -> ImageRef:
    """A file that only looks like a picture."""
    path = folder / "damaged.png"
    path.write_bytes(b"\x89PNG\r\n\x1a\n and nothing else")
    return ImageRef(path.name, path)
