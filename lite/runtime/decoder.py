"""The decoder: token ids and image features in, logits out, nothing computed twice.

Contract: the decoder knows ids and arrays, never text. Its one question is "the logits at the end
of this sequence"; it compares the sequence with what its KV cache holds (`lite.runtime.kv_cache`)
and runs only the rest. So an image that arrives later recomputes exactly the tokens whose inputs it
changes, and a shortened, edited or continued conversation needs no special case.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import onnxruntime as ort

from lite.bundle.bundle import Bundle
from lite.bundle.manifest import DECODER
from lite.errors import BadInput, LiteError, first_line
from lite.runtime.device import CPU, device_of
from lite.runtime.kv_cache import CacheState, KVCache
from lite.runtime.ort_session import open_session
from lite.runtime.vision import ImageFeatures

# Tokens per prefill run: large enough to keep the multiplications efficient, small enough to show
# progress and to notice Ctrl-C.
PREFILL_CHUNK = 128
# No LLaMA has more; a manifest that claims it would make us allocate without end.
MAX_CONTEXT = 1 << 20
# What the KV cache's inputs may be, by ONNX Runtime's names.
CACHE_TYPES = {
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(int8)": np.int8,
}


class Decoder:
    """One conversation's KV cache on top of the decoder graph."""

    def __init__(self, bundle: Bundle, session: ort.InferenceSession) -> None:
        """A decoder with an empty cache; several may share one session, see `open`."""
        self._bundle = bundle
        self._sizes = bundle.manifest.sizes
        self._injection = bundle.manifest.injected
        self._special = frozenset(bundle.manifest.special_ids.values())
        self._session = session
        self._check_graph()
        self._inputs = {end.name for end in session.get_inputs()}
        self._binding = self._session.io_binding()
        self._binding.bind_output("logits")  # first, so that it is the first of the outputs
        skips = "conditioned" in self._inputs
        self._cache = KVCache(self._sizes, self.cache_dtype, skips, self.device)
        self._cache.bind(self._binding)
        self._bound_features: tuple[tuple[str, ...], ort.OrtValue] | None = None
        self.computed = 0

    @classmethod
    def open(
        cls,
        bundle: Bundle,
        device: str = CPU,
        threads: int | None = None,
        graph: Path | None = None,
    ) -> Decoder:
        """Open the decoder graph, or another form of the same, `graph`.

        Raises:
            BadInput: the manifest does not describe the graph.
        """
        return cls(bundle, open_session(graph or bundle.path(DECODER), device, threads))

    def fork(self) -> Decoder:
        """Another decoder on the same weights with an empty cache of its own.

        Each may run in a thread of its own at the same time.
        """
        return Decoder(self._bundle, self._session)

    @property
    def context(self) -> int:
        """Positions that the model can hold."""
        return self._sizes.context

    @property
    def threads(self) -> int:
        """Worker threads of the session; 0 is ONNX Runtime's own choice."""
        return self._session.get_session_options().intra_op_num_threads

    @property
    def device(self) -> str:
        """Where the graph runs, of `lite.runtime.device.DEVICES`."""
        return device_of(self._session)

    @property
    def cache_dtype(self) -> type:
        """Of the KV cache's values."""
        return CACHE_TYPES[self._types["past.0.key"]]

    @property
    def bytes_per_position(self) -> int:
        """Bytes of the KV cache for one token."""
        return self._cache.bytes_per_position

    def logits(
        self,
        ids: Sequence[int] | np.ndarray,
        images: Sequence[ImageFeatures] = (),
        progress: Callable[[int, int], None] = lambda done, total: None,
        *,
        from_scratch: bool = False,
    ) -> np.ndarray:
        """Logits after the last token of `ids`, float32 `[vocab]`.

        Sets `computed` to the number of tokens that had to be run.

        Args:
            ids: the whole sequence.
            images: the features of each image in it, see `lite.bundle.injection`.
            progress: called with (tokens done, tokens to do) after each run.
            from_scratch: run all of it, whatever the cache holds. Rounding depends on how a prompt
                is cut into runs, so only this gives the same bits at each time.

        Raises:
            BadInput: the sequence is empty or too long, or images and `<image>` tokens differ.
        """
        if from_scratch:
            self._cache.forget()
        rows, self.computed = self._end_of(ids, images, 1, progress)
        return rows[0]

    def ahead(
        self, ids: Sequence[int] | np.ndarray, images: Sequence[ImageFeatures], draft: Sequence[int]
    ) -> np.ndarray:
        """Logits after the last token of `ids` and after each token guessed to follow it.

        The guesses that prove wrong cost nothing later: the cache is compared with each sequence.

        Args:
            ids: the whole sequence.
            images: the features of each image in it.
            draft: further tokens, `ordinary` ones.

        Returns:
            float32 `[1 + len(draft), vocab]`.

        Errors as for `logits`.
        """
        return self._end_of([*ids, *draft], images, 1 + len(draft), lambda done, total: None)[0]

    def ordinary(self, ids: Sequence[int]) -> list[int]:
        """The tokens before the first that no answer can hold."""
        special, vocab = self._special, self._sizes.vocab
        ends = (i for i, token in enumerate(ids) if token in special or token >= vocab)
        return list(ids[: next(ends, None)])

    def reusable(
        self, ids: Sequence[int] | np.ndarray, images: Sequence[ImageFeatures] = ()
    ) -> int:
        """How many leading tokens of a sequence the cache already holds; errors as for `logits`."""
        ids, index = self._checked(ids, images)
        return self._cache.reusable(ids, self._attended_images_of(index, images))

    def export_cache(
        self, ids: Sequence[int] | np.ndarray, images: Sequence[ImageFeatures] = ()
    ) -> CacheState:
        """What the cache holds of a sequence, see `reusable`; its layers are read as they are used.

        Errors as for `logits`.
        """
        return self._cache.export(self.reusable(ids, images))

    def import_cache(
        self,
        state: CacheState,
        ids: Sequence[int] | np.ndarray,
        images: Sequence[ImageFeatures] = (),
    ) -> None:
        """Hold what another decoder of the same model exported of a sequence, and nothing else.

        The caller vouches for the values: only their number and shape is checked. Errors as for
        `logits`, and:

        Raises:
            ValueError: the state is of another sequence, or does not fit this model. The cache is
                then empty, or as it was.
        """
        ids, index = self._checked(ids, images)
        self._cache.import_(state, ids, self._attended_images_of(index, images))

    def score(
        self, ids: Sequence[int] | np.ndarray, images: Sequence[ImageFeatures] = ()
    ) -> np.ndarray:
        """Logits of every position, float32 `[T, vocab]`; arguments and errors as for `logits`."""
        ids, index = self._checked(ids, images)
        attended_images = self._attended_images_of(index, images)
        self.computed = len(ids)
        return self._run_from(0, ids, attended_images, images, 0, lambda done, total: None)

    def _end_of(
        self,
        ids: Sequence[int] | np.ndarray,
        images: Sequence[ImageFeatures],
        rows: int,
        progress: Callable[[int, int], None],
    ) -> tuple[np.ndarray, int]:
        """Logits of the last `rows` positions, and how many the cache did not hold."""
        ids, index = self._checked(ids, images)
        attended_images = self._attended_images_of(index, images)
        # These positions always run: logits are not kept.
        first = len(ids) - rows
        start = min(self._cache.reusable(ids, attended_images), first)
        logits = self._run_from(start, ids, attended_images, images, first, progress)
        return logits, len(ids) - start

    def _checked(
        self, ids: Sequence[int] | np.ndarray, images: Sequence[ImageFeatures]
    ) -> tuple[np.ndarray, np.ndarray]:
        ids = np.array(ids, dtype=np.int64)  # a copy: the caller may go on writing to theirs
        if ids.ndim != 1 or ids.size == 0:
            raise BadInput("There are no tokens to run; give at least one.")
        if ids.size > self.context:
            raise BadInput(
                f"The prompt has {ids.size} tokens but the model's context holds {self.context}; "
                f"shorten it."
            )
        rows = max(self._sizes.vocab, 1 + max(self._bundle.manifest.special_ids.values()))
        if ids.min() < 0 or ids.max() >= rows:
            raise BadInput(f"A token id is outside 0 to {rows - 1}; tokenize with this model.")
        self._injection.check(ids, len(images))
        return ids, self._injection.attended_images(ids)

    def _attended_images_of(self, index: np.ndarray, images: Sequence[ImageFeatures]) -> np.ndarray:
        return self._cache.attended_images_of(index, [image.key for image in images])

    def _run_from(
        self,
        start: int,
        ids: np.ndarray,
        attended_images: np.ndarray,
        images: Sequence[ImageFeatures],
        first: int,
        progress: Callable[[int, int], None],
    ) -> np.ndarray:
        """Runs `ids[start:]` in chunks; logits of `ids[first:]`."""
        ranges, offsets = self._injection.ranges(ids), self._injection.offsets(ids)
        rows = []
        for at in range(start, len(ids), PREFILL_CHUNK):
            end = min(at + PREFILL_CHUNK, len(ids))
            # Until the run is done, the cache is right only up to where it starts.
            self._cache.hold(ids[:at], attended_images[:at])
            # A chunk before the first position gives one row, which is not used.
            wanted = min(max(first, at), end - 1)
            part = slice(at, end)
            found = self._run(at, ids[part], ranges[part], offsets[part], images, wanted - at)
            rows += [found] if end > first else []
            self._cache.hold(ids[:end], attended_images[:end])
            progress(end - start, len(ids) - start)
        return rows[0] if len(rows) == 1 else np.concatenate(rows)

    def _run(
        self,
        past: int,
        ids: np.ndarray,
        ranges: np.ndarray,
        offsets: np.ndarray,
        images: Sequence[ImageFeatures],
        first: int,
    ) -> np.ndarray:
        """One run of the graph: logits of `ids[first:]`, float32 `[T - first, vocab]`."""
        # Not `np.unique` by rows: while it compares them, it makes a TypeError of a Ctrl-C.
        different = {*map(tuple, ranges.tolist())}
        attended = sorted({j for a, b in different if b for j in range(a, b + 1)})
        first_number, number = np.searchsorted([0, *attended], ranges).T  # among these, from 1
        place = np.where(number > 0, (number - 1) * self._injection.image_tokens + offsets + 1, 0)
        inputs = {
            "input_ids": ort.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(ids)[None]),
            "image_index": ort.OrtValue.ortvalue_from_numpy(place.astype(np.int32)[None]),
            "first_image": ort.OrtValue.ortvalue_from_numpy(first_number.astype(np.int32)[None]),
            "conditioned": ort.OrtValue.ortvalue_from_numpy(np.array(bool(images))),
            "past_length": ort.OrtValue.ortvalue_from_numpy(np.array([past], dtype=np.int32)),
            "logits_from": ort.OrtValue.ortvalue_from_numpy(np.array([first], dtype=np.int64)),
            "visual_memory": self._joined([images[j - 1] for j in attended]),
        }
        binding = self._binding
        for name, value in inputs.items():
            if name in self._inputs:
                binding.bind_ortvalue_input(name, value)
        binding.bind_output("logits")
        try:
            self._session.run_with_iobinding(binding)  # `inputs` must live until it returns
        except Exception as error:
            raise LiteError(
                f"ONNX Runtime failed in the decoder ({first_line(error)}); "
                f"update onnxruntime or export the bundle again."
            ) from error
        logits = binding.get_outputs()[0].numpy()[0]
        if not np.isfinite(logits[-1]).all():
            raise LiteError(
                "The decoder gave numbers that are not finite; the weights are damaged or overflow "
                "in this precision, so export again, or with another precision."
            )
        return logits

    def _joined(self, images: Sequence[ImageFeatures]) -> ort.OrtValue:
        """The features of `images` side by side: n * latents where one has latents."""
        keys = tuple(image.key for image in images)
        if self._bound_features is None or self._bound_features[0] != keys:
            *outer, _, d = self._sizes.feature_shape
            nothing = np.zeros((*outer, 0, d), dtype=np.float32)
            joined = np.concatenate([nothing, *(image.array for image in images)], axis=-2)
            value = ort.OrtValue.ortvalue_from_numpy(joined, self.device, 0)
            self._bound_features = (keys, value)
        return self._bound_features[1]

    def _check_graph(self) -> None:
        """The manifest's sizes against the graph's own, before anything is allocated by them."""
        s = self._sizes
        ends = (*self._session.get_inputs(), *self._session.get_outputs())
        shapes = {end.name: end.shape for end in ends}
        self._types = {end.name: end.type for end in ends}
        features = [*s.feature_shape[:-2], None, s.visual_head_dim]
        past = sum(name.startswith("past.") for name in shapes)
        fits = (
            past == 2 * s.layers
            and self._types["past.0.key"] in CACHE_TYPES
            and shapes["past.0.key"][1::2] == [s.kv_heads, s.head_dim]
            and len(features) == len(shapes["visual_memory"])
            and all(a in (b, None) for a, b in zip(features, shapes["visual_memory"], strict=True))
            and shapes["logits"][-1] == s.vocab
            and s.context <= MAX_CONTEXT
        )
        if not fits:
            raise BadInput(
                f"The manifest of {self._bundle.folder} does not describe its decoder; "
                f"export the bundle again."
            )
