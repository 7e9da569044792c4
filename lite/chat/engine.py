"""The parts of a loaded bundle that a conversation runs on.

Contract: opens each part once, the graphs at their first use; knows nothing of turns or of text
beyond the tokenizer.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property

from lite.bundle.bundle import Bundle
from lite.bundle.manifest import TOKENIZER
from lite.runtime.decoder import Decoder
from lite.runtime.decoder_pool import DecoderPool
from lite.runtime.device import CPU, choose_device
from lite.runtime.prepacked import prepacked_graph
from lite.runtime.prompt_lookup import RunCosts
from lite.runtime.threads import choose_threads
from lite.runtime.vision import VisionEncoder
from lite.text.tokenizer import Tokenizer


class Engine:
    """Tokenizer, template, vision encoder and decoder of one bundle.

    Safe to use from several threads, each with chats of its own. Answers one after the other share
    one KV cache: the last conversation prefills only its new tokens, another one is prefilled again
    from where it differs. Answers at the same time have a KV cache each (`decoders`).
    """

    def __init__(
        self,
        bundle: Bundle,
        device: str = CPU,
        threads: int | None = None,
        notice: Callable[[str], None] = lambda sentence: None,
    ) -> None:
        """
        Args:
            bundle: opened and checked.
            device: of `lite.runtime.device.DEVICES`; what cannot be used is replaced by the CPU.
            threads: worker threads; None is one per physical core for images, and for tokens
                what `lite.runtime.threads` measured.
            notice: called with a sentence before work that is done once on each machine, or where
                the device cannot be had.
        """
        device = choose_device(device, bundle.manifest, notice)
        self.bundle = bundle
        self.template = bundle.manifest.template
        self.tokenizer = Tokenizer.from_file(
            bundle.path(TOKENIZER),
            bundle.manifest.special_ids,
            image_tokens=bundle.manifest.injected.image_tokens,
            strips=self.template.strips,
        )
        self.vision = VisionEncoder(bundle, device, threads)
        self._decoder_options = (device, threads)
        self._notice = notice
        self.run_costs = RunCosts()
        self.decoders = DecoderPool(lambda: self.decoder)

    @cached_property
    def decoder(self) -> Decoder:
        """The first decoder, opened at first use. One thread at a time may use it directly."""
        device, threads = self._decoder_options
        graph = prepacked_graph(self.bundle, device, self._notice)
        if threads is None:
            threads = choose_threads(self.bundle, device, self._notice, graph)
        return Decoder.open(self.bundle, device, threads, graph)

    @property
    def context(self) -> int:
        """Tokens that prompt and answer may have together."""
        return self.bundle.manifest.sizes.context
