"""A data set ready for training: which of its records can be used, and what is wrong with the rest.

Contract: every record that may be trained on was read once before training, so that a missing
image or an empty answer is reported at the start and not after a night. A conversation is a pure
function of (seed, name, epoch, index).
"""

from __future__ import annotations

import random
from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from hashlib import blake2b
from pathlib import Path, PureWindowsPath

from lite.errors import BadInput
from qlora.data.conversation import BadRecord, Conversation
from qlora.data.formats import Reader, open_reader
from qlora.data.images import ImageRoot, MissingImage
from qlora.data.shuffle import Permutation

ERROR, SKIP = "error", "skip"
_EXAMPLES = 3
# Records between two calls of `progress`.
_STRIDE = 1000

Progress = Callable[[int, int], None]


class DataSet:
    """The usable records of one file.

    Attributes:
        name: what it is called in messages.
        weight: how often an epoch goes through it.
        with_images, without_images: indices of usable records, ascending.
        images: for each image of a usable record, the record's index and a number for the image.
        problems: records that cannot be used, by what is wrong with them.
        examples: ids of the first three of each problem.
        content: differs where the texts or the images' names of usable records differ.
        missing: the first path that was looked for and not found; empty where none was missing.
        repairs: what was dropped from records that are used, and how often.
    """

    def __init__(
        self,
        name: str,
        reader: Reader,
        *,
        weight: float = 1.0,
        sample: int | None = None,
        seed: int = 0,
        missing_images: str = ERROR,
        bad_records: str = ERROR,
        progress: Progress = lambda done, total: None,
    ) -> None:
        """Read all records once; images are looked for, not decoded.

        Args:
            name: of the set; part of what its random choices depend on.
            reader: of the file.
            weight: see `Mixture`.
            sample: use the first so many usable records of a random order, and look no further.
            seed: of that order and of all choices.
            missing_images, bad_records: `error` or `skip`.
            progress: called with (records seen, records).

        Raises:
            BadInput: a record cannot be used and must not be skipped, none can be used, or an
                image path leads out of the data root.
        """
        self.name, self.weight, self._reader, self._seed = name, weight, reader, seed
        self.problems: Counter[str] = Counter()
        self.examples: dict[str, list[str]] = {}
        self.missing = self.content = ""
        self._image_records, self._image_keys = array("q"), array("Q")
        self._policies = {True: missing_images, False: bad_records}
        self._fatal: Counter[str] = Counter()
        self.with_images, self.without_images = self._look(sample, progress)
        self.repairs = Counter(reader.repairs)
        self._judge()

    @classmethod
    def open(
        cls,
        root: Path,
        path: str,
        *,
        format: str | None = None,
        images: str | None = None,
        name: str | None = None,
        weight: float = 1.0,
        sample: int | None = None,
        seed: int = 0,
        missing_images: str = ERROR,
        bad_records: str = ERROR,
        progress: Progress = lambda done, total: None,
    ) -> DataSet:
        """Open a data set below the data root.

        Args:
            root: the folder that holds all data.
            path: the file, relative to it.
            format: one of `FORMATS`; None to find out.
            images: folder of the images, relative to the root; None for the root itself.
            name: by default the file's name without its endings.
            weight, sample, seed, missing_images, bad_records, progress: as for the class.

        Raises:
            BadInput: as the class, and if the file cannot be read or is not below the root.
        """
        file = _below(root, path)
        folder = root if images is None else _below(root, images)
        if not folder.is_dir():
            raise BadInput(f"There is no folder {folder} for the images of {path}; check images.")
        return cls(
            name or file.name.partition(".")[0],
            open_reader(file, ImageRoot(folder, root), format),
            weight=weight,
            sample=sample,
            seed=seed,
            missing_images=missing_images,
            bad_records=bad_records,
            progress=progress,
        )

    def __len__(self) -> int:
        return len(self.with_images) + len(self.without_images)

    @property
    def format(self) -> str:
        """Name of the format."""
        return self._reader.name

    @property
    def left_out(self) -> dict[str, int]:
        """The problems, with the first path that was looked for where images are missing."""
        missing, path = (
            str(MissingImage("")),
            f" (the first was looked for at {self.missing[:300]!a})",
        )
        return {k + (path if k == missing else ""): n for k, n in self.problems.items()}

    @property
    def usable(self) -> list[int]:
        """Indices of all usable records, ascending."""
        return sorted([*self.with_images, *self.without_images])

    @property
    def images(self) -> Iterator[tuple[int, int]]:
        return zip(self._image_records, self._image_keys, strict=True)

    @property
    def fingerprint(self) -> str:
        """Differs where the file has another size, or other records of it can be used."""
        digest = blake2b(str(self._reader.path.stat().st_size).encode(), digest_size=16)
        for indices in (self.with_images, self.without_images):
            digest.update(b"/" + array("q", indices).tobytes())
        return digest.hexdigest()

    def conversation(self, index: int, epoch: int) -> Conversation:
        """A usable record as an epoch shows it.

        Args:
            index: of the record in its file, from `with_images` or `without_images`.
            epoch: what else the record's random choices depend on.

        Raises:
            BadRecord: the file or its images have changed since they were looked at.
        """
        key = f"{self._seed}/{self.name}/{epoch}/{index}"
        return self._reader.conversation(index, random.Random(key))

    def _look(self, sample: int | None, progress: Progress) -> tuple[Sequence[int], Sequence[int]]:
        """Sort all records into those with images, those without, and problems."""
        total = len(self._reader)
        order: Iterable[int] = range(total)
        if sample is not None:
            permuted = Permutation(total, self._seed, self.name, "sample")
            order = (permuted[i] for i in range(total))
        with_images, without_images = array("q"), array("q")
        content = blake2b(digest_size=16)
        for done, index in enumerate(order):
            if sample is not None and len(with_images) + len(without_images) == sample:
                break
            if done % _STRIDE == 0:
                progress(done, total)
            try:
                conversation = self.conversation(index, 0)
                _check_unicode(conversation)
            except BadRecord as problem:
                self._note(problem, index)
                continue
            (with_images if conversation.images else without_images).append(index)
            content.update(_content(conversation))
            for image in conversation.images:
                self._image_records.append(index)
                self._image_keys.append(int.from_bytes(image.key[:8], "little"))
        progress(total, total)
        self.content = content.hexdigest()
        return sorted(with_images), sorted(without_images)

    def _note(self, problem: BadRecord, index: int) -> None:
        kind = str(problem)
        self.problems[kind] += 1
        examples = self.examples.setdefault(kind, [])
        if len(examples) < _EXAMPLES:
            examples.append(self._reader.id(index))
        if isinstance(problem, MissingImage):
            self.missing = self.missing or problem.looked_for
        if self._policies[isinstance(problem, MissingImage)] == ERROR:
            self._fatal[kind] += 1

    def _judge(self) -> None:
        missing = str(MissingImage(""))
        reasons = ", ".join(
            f"{count} x {kind} (first: {self.examples[kind][0]!a})"
            + (f" looked for at {self.missing[:300]!a}" if kind == missing else "")
            for kind, count in self.problems.most_common()
        )
        if self._fatal:
            settings = ["data.missing_images=skip"] if missing in self._fatal else []
            settings += ["data.bad_records=skip"] if {*self._fatal} - {missing} else []
            raise BadInput(
                f"{sum(self.problems.values())} of {len(self._reader)} records of {self.name} "
                f"cannot be trained on: {reasons}; mend them, or leave them out with "
                f"{' '.join(settings)}."
            )
        if not len(self):
            raise BadInput(
                f"No record of {self.name} can be trained on{f': {reasons}' if reasons else ''}; "
                f"check its type and its images, or leave it out."
            )


def _content(conversation: Conversation) -> bytes:
    texts = [(one.question, one.context, one.answer) for one in conversation.exchanges]
    names = [image.name for image in conversation.images]
    return repr((conversation.system, texts, names)).encode()


def _check_unicode(conversation: Conversation) -> None:
    try:
        for one in conversation.exchanges:
            f"{conversation.system}{one.question}{one.context}{one.answer}".encode()
    except UnicodeEncodeError:
        raise BadRecord("text with half a character") from None


def _below(root: Path, path: str) -> Path:
    """A path from a recipe, below the root by its spelling; links are the owner's to set."""
    given = PureWindowsPath(path)
    if given.drive or given.root or ".." in given.parts:
        raise BadInput(f"{path} is not below the data root {root}; move it there or set data.root.")
    return Path(root) / path
