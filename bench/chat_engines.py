"""The engines that `lite-bench chat` compares, each in a process of its own.

Contract: an engine encodes an image, starts an empty conversation, and runs a number of further
tokens at once. All measures are made of these, so every engine does the same work. Tokens are
random and nothing is sampled, as in llama-bench. The process reads one JSON request a line from
standard input and answers with one JSON line; between requests it is idle.
"""

from __future__ import annotations

import json
import os
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

Result = TypeVar("Result")

# Image tokens of LLaVA-1.5: 24 x 24 patches of a ViT-L/14 at 336 pixels.
LLAVA_TOKENS = 576


class Engine(ABC):
    """One runtime with one model.

    Attributes:
        facts: what the report says of it: versions, threads, and where they are known
            `weight_bytes` that a token reads and `kv_bytes` for each position before it.
        load: seconds from the model on disk to the logits of a first token, without imports.
    """

    facts: dict[str, Any]
    load: float
    vocabulary: int

    def encode_image(self) -> bool:
        """Encode an image never seen before; False where the engine has no vision encoder here."""
        return False

    def run_given(self, tokens: list[int], lookup: bool = True) -> bool:
        """Run given tokens one after the other; False where it has no prompt lookup."""
        return False

    @abstractmethod
    def reset(self, image: bool = False) -> None:
        """Start again, with the image that was encoded last or without one."""

    @abstractmethod
    def run(self, tokens: int) -> None:
        """Run a number of further random tokens at once, up to the logits of the last."""

    def random(self, tokens: int) -> list[int]:
        """Random ordinary tokens."""
        return self._random.integers(3, self.vocabulary, tokens).tolist()

    _random = np.random.default_rng(0)


class Lite(Engine):
    """This package on a bundle."""

    def __init__(self, bundle: str, threads: int | None, device: str) -> None:
        import onnxruntime

        import lite
        from bench.graph_bytes import decode_bytes
        from lite.bundle.manifest import DECODER

        start = time.perf_counter()
        self._model = lite.load(bundle, device, threads)
        manifest = self._model.bundle.manifest
        self.vocabulary = manifest.sizes.vocab
        self._image = [manifest.special_ids["<image>"]] * manifest.injected.image_tokens
        self._memory: Any = None
        self._decoder = self._model.decoder
        if self._decoder.device != device:
            raise SystemExit(f"{bundle} does not run on {device} here")
        self.reset()
        self.run(1)
        self.load = time.perf_counter() - start
        read = decode_bytes(self._model.bundle.path(DECODER))
        self.facts = {
            "onnxruntime": onnxruntime.__version__,
            "precision": manifest.precision,
            "parameters": manifest.sizes.parameters,
            "bundle_bytes": sum(record.size for record in manifest.files.values()),
            "weight_bytes": read.text,
            "weight_bytes_image": read.text + read.gated,
            "kv_bytes": self._decoder.bytes_per_position,
            "image_tokens": len(self._image),
            "device": device,
            "threads": self._decoder.threads,
        }

    def encode_image(self) -> bool:
        from lite.image.preprocessing import load_image, to_pixels
        from lite.runtime.vision import ImageFeatures

        preprocessing = self._model.bundle.manifest.preprocessing
        picture = self._random.integers(0, 256, (480, 640, 3), dtype=np.uint8)
        pixels = to_pixels(load_image(picture), preprocessing)
        array = self._model.vision.run(pixels[None])[1][0]
        self._memory = ImageFeatures(f"image {self._random.integers(1 << 62)}", array)
        return True

    def reset(self, image: bool = False) -> None:
        # The first token is a new one each time, so that nothing of the KV cache is used again.
        self._ids = self.random(1) + (self._image if image else [])
        self._images = [self._memory] if image else []

    def run(self, tokens: int) -> None:
        self._ids += self.random(tokens)
        self._decoder.logits(self._ids, self._images)

    def run_given(self, tokens: list[int], lookup: bool = True) -> bool:
        from lite.runtime.prompt_lookup import PromptLookup

        prompt_lookup = PromptLookup(self._decoder, self._model.run_costs, lookup)
        for token in tokens:
            self._ids.append(token)
            prompt_lookup.logits(self._ids, self._images)
        return True


class LlamaCpp(Engine):
    """llama.cpp by llama-cpp-python on a GGUF file."""

    def __init__(self, file: str, threads: int | None, gpu_layers: int = 0) -> None:
        import llama_cpp

        start = time.perf_counter()
        self._llama = llama_cpp.Llama(
            model_path=file,
            n_ctx=4096,
            n_batch=512,
            n_threads=threads,
            n_threads_batch=threads,
            n_gpu_layers=gpu_layers,
            verbose=False,
        )
        self.vocabulary = self._llama.n_vocab()
        self.reset()
        self.run(1)
        self.load = time.perf_counter() - start
        self.facts = {
            "llama-cpp-python": llama_cpp.__version__,
            "file_bytes": Path(file).stat().st_size,
            "weight_bytes": _gguf_read_bytes(file),
            "threads": self._llama.n_threads,
            "image": f"stands for {LLAVA_TOKENS} positions, its encoder is not counted",
        }

    def reset(self, image: bool = False) -> None:
        self._llama.reset()
        self._waiting = LLAVA_TOKENS if image else 0

    def run(self, tokens: int) -> None:
        self._llama.eval(self.random(self._waiting + tokens))
        self._waiting = 0


class Transformers(Engine):
    """transformers, eager, on a LLaMA of the same shape with random weights."""

    def __init__(self, shape: str, threads: int | None, dtype: str = "float32") -> None:
        import torch
        import transformers

        from bench.shapes import config_of

        if threads:
            torch.set_num_threads(threads)
        self._torch = torch
        self._device = "cuda" if torch.cuda.is_available() else "cpu"
        config = config_of(shape).llama
        config._attn_implementation = "eager"
        torch.set_default_dtype(getattr(torch, dtype))
        start = time.perf_counter()
        with torch.device(self._device):
            self._model = transformers.LlamaForCausalLM(config).eval()
        self.vocabulary = config.vocab_size
        self.reset()
        self.run(1)
        self.load = time.perf_counter() - start
        total = sum(p.nbytes for p in self._model.parameters())
        kv = 2 * config.num_hidden_layers * config.num_key_value_heads * config.head_dim
        self.facts = {
            "torch": torch.__version__,
            "transformers": transformers.__version__,
            "dtype": dtype,
            "device": self._device,
            "weight_bytes": total - self._model.get_input_embeddings().weight.nbytes,
            "kv_bytes": kv * self._model.dtype.itemsize,
            "threads": torch.get_num_threads(),
            "image": f"stands for {LLAVA_TOKENS} positions, its encoder is not counted",
        }

    def reset(self, image: bool = False) -> None:
        self._cache: Any = None
        self._waiting = LLAVA_TOKENS if image else 0

    def run(self, tokens: int) -> None:
        torch = self._torch
        ids = torch.tensor([self.random(self._waiting + tokens)], device=self._device)
        with torch.inference_mode():
            out = self._model(ids, past_key_values=self._cache, use_cache=True, logits_to_keep=1)
            out.logits.float().cpu()
        self._cache, self._waiting = out.past_key_values, 0


ENGINES: dict[str, Callable[..., Engine]] = {
    "lite": Lite,
    "llama.cpp": LlamaCpp,
    "transformers": Transformers,
}


def _gguf_read_bytes(file: str) -> int | None:
    """Bytes of all tensors but the token embedding; None where the gguf package is missing."""
    try:
        from gguf import GGUFReader
    except ImportError:
        return None
    tensors = GGUFReader(file).tensors
    return int(sum(t.n_bytes for t in tensors if t.name != "token_embd.weight"))


def timed(work: Callable[[], Result]) -> tuple[float, Result]:
    """Seconds that `work` takes, and what it returns."""
    start = time.perf_counter()
    result = work()
    return time.perf_counter() - start, result


def measure(engine: Engine, what: str, settings: dict[str, Any]) -> dict[str, float]:
    """One repetition of a measure: seconds by name, for the report to turn into figures."""
    if what == "vis":
        seconds, done = timed(engine.encode_image)
        return {"vis": seconds} if done else {}
    if what == "pp":
        engine.reset()
        return {"pp": timed(lambda: engine.run(settings["prompt"]))[0]}
    if what == "tg":
        engine.reset()
        engine.run(1)
        return {"tg": _decode(engine, settings["answer"])}
    if what == "tg image":
        if not engine.encode_image():
            return {}
        engine.reset(image=True)
        engine.run(1)
        return {"tg image": _decode(engine, settings["answer"])}
    if what == "prompt_lookup":
        return _prompt_lookup(engine, settings["answer"])
    if what == "turns":
        return _turns(engine, settings)
    return _growth(engine, settings)


def _decode(engine: Engine, tokens: int) -> float:
    return timed(lambda: [engine.run(1) for _ in range(tokens)])[0]


def _prompt_lookup(engine: Engine, tokens: int) -> dict[str, float]:
    """An answer without repetition, without and with prompt lookup, and one that repeats a phrase
    of 16 tokens; measured one right after the other.
    """
    new, phrase = engine.random(tokens), engine.random(16)
    repeating = (phrase * (tokens // 16 + 1))[:tokens]
    found: dict[str, float] = {}
    for name, text, lookup in (
        ("plain", new, False),
        ("new", new, True),
        ("repeating", repeating, True),
    ):
        engine.reset()
        engine.run(1)
        seconds, done = timed(partial(engine.run_given, text, lookup))
        found |= {f"tg {name}": seconds} if done else {}
    return found


def _turns(engine: Engine, settings: dict[str, Any]) -> dict[str, float]:
    """A conversation about an image: seconds to the first token of each turn."""
    found = {}
    for turn in range(1, settings["turns"] + 1):
        question = settings["first_question" if turn == 1 else "question"]
        start = time.perf_counter()
        if turn == 1:
            engine.encode_image()
            engine.reset(image=True)
        engine.run(question)
        found[f"ttft {turn}"] = time.perf_counter() - start
        _decode(engine, settings["reply"])
    return found


def _growth(engine: Engine, settings: dict[str, Any]) -> dict[str, float]:
    """Seconds for a token at growing depths of context."""
    engine.reset()
    at, found = 0, {}
    for depth in settings["depths"]:
        if depth > at:
            engine.run(depth - at)
        found[f"depth {depth}"] = _decode(engine, settings["steps"]) / settings["steps"]
        at = max(depth, at) + settings["steps"]
    return found


def main() -> None:
    """Load the engine that the command line names, then answer requests."""
    from bench.machine import peak_bytes

    name, options = sys.argv[1], json.loads(sys.argv[2])
    # Libraries that talk write to stderr: stdout carries the protocol.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)

    def answer(content: dict[str, Any]) -> None:
        print(json.dumps(content), file=answers, flush=True)

    engine = ENGINES[name](**options)
    answer({"load": engine.load, "facts": engine.facts})
    for line in sys.stdin:
        request = json.loads(line)
        answer(measure(engine, request["what"], request) | {"peak_bytes": peak_bytes()})


if __name__ == "__main__":
    main()
