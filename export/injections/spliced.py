"""Visual tokens as embeddings in the prompt, in both graphs.

Contract: equals `qlora.model.injection.spliced.Spliced.decoder_inputs`; here the attended image of
an `<image>` token is counted in visual tokens.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir

from export.injections.base import InjectionWriter


class SplicedWriter(InjectionWriter):
    """Writes the splicing of one model."""

    memory: ir.Value  # [N * L, D]

    def features(self, visual: ir.Value) -> tuple[ir.Value, list[int | str]]:
        """The visual tokens themselves."""
        shape: list[int | str] = ["n", self.config.latents, self.config.dim_visual]
        return self.g.op("Identity", visual), shape

    def declare(self) -> None:
        """The visual tokens of the images in this run, one after the other."""
        width = self.config.llama.hidden_size
        self.memory = self.g.real_input("visual_memory", ["N_L", width])

    def embed(self, ids: ir.Value, embedding: Callable[[ir.Value], ir.Value]) -> ir.Value:
        """Embeddings of text, and visual tokens where `<image>` tokens stand."""
        g, images = self.g, self.images
        # `<image>` has no row of its own.
        no_image = g.weight("const.first", np.array(0, dtype=np.int64))
        x = embedding(g.op("Where", images.some, no_image, ids))

        def spliced() -> ir.Value:
            one = g.weight("const.one", np.array([1], dtype=np.int32))
            floor = g.weight("const.none", np.array([0], dtype=np.int32))
            rows = g.op("Max", g.op("Sub", images.last, one), floor)
            mask = g.op("Unsqueeze", images.some, g.constant(2))
            return g.op("Where", mask, g.op("Gather", self.memory, rows, axis=0), x)

        return g.either(images.any, spliced, lambda: x)
