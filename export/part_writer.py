"""What the writers of parts share: a graph, the model's tensors, and layers that recur.

Contract: a layer takes the name of its parameters in `qlora.model.VisionLanguageModel`, and its
initializers get that name.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir

from export.graph import CONTRIB, Graph
from qlora.checkpoints.sources import TensorSource

# LayerNorm epsilon of torch, open_clip and OpenFlamingo alike.
EPSILON = 1e-5


class PartWriter:
    """Writes one part of a model into a graph."""

    def __init__(self, graph: Graph, weights: TensorSource) -> None:
        self.g, self.weights = graph, weights

    def array(self, name: str) -> np.ndarray:
        """A tensor in float32."""
        return self.weights[name].float().numpy()

    def parameter(self, name: str) -> ir.Value:
        """A tensor as an initializer."""
        return self.g.weight(name, self.array(name))

    def linear(self, x: ir.Value, name: str, bias: bool = False, role: str = "") -> ir.Value:
        """The linear layer of that name, see `Graph.linear`."""
        offset = self.array(f"{name}.bias") if bias else None
        return self.g.linear(x, name, self.array(f"{name}.weight"), offset, role)

    def layer_norm(self, x: ir.Value, name: str, epsilon: float = EPSILON) -> ir.Value:
        """LayerNorm over the last axis."""
        scale, bias = self.parameter(f"{name}.weight"), self.parameter(f"{name}.bias")
        return self.g.op("LayerNormalization", x, scale, bias, axis=-1, epsilon=epsilon)

    def rms_norm(self, x: ir.Value, name: str, epsilon: float) -> ir.Value:
        """RMSNorm over the last axis."""
        scale = self.parameter(f"{name}.weight")
        return self.g.op("SimplifiedLayerNormalization", x, scale, axis=-1, epsilon=epsilon)

    def by_head(self, x: ir.Value, heads: int, norm: Callable[[ir.Value], ir.Value]) -> ir.Value:
        """`norm` on each head of `x [n, T, heads * d]`."""
        g = self.g
        x = norm(g.op("Reshape", x, g.constant(0, 0, heads, -1)))
        return g.op("Reshape", x, g.constant(0, 0, -1))

    def for_each_image(self, x: ir.Value, name: str, rows: np.ndarray) -> ir.Value:
        """`rows [1, L, D]` once for each image of `x [n, ...]`: `[n, L, D]`."""
        g = self.g
        shape = g.op("Concat", g.op("Shape", x, start=0, end=1), g.constant(1, 1), axis=0)
        return g.op("Expand", g.weight(name, rows), shape)

    def swiglu(self, x: ir.Value, name: str, down: np.ndarray | None = None) -> ir.Value:
        """LLaMA's feed-forward; `down` replaces the matrix of `down_proj`."""
        g = self.g
        gate = g.linear(x, f"{name}.gate_proj", self.array(f"{name}.gate_proj.weight"))
        up = g.linear(x, f"{name}.up_proj", self.array(f"{name}.up_proj.weight"))
        # SiLU is QuickGelu with alpha 1: one fused node instead of two.
        h = g.op("Mul", g.op("QuickGelu", gate, domain=CONTRIB, alpha=1.0), up)
        down = self.array(f"{name}.down_proj.weight") if down is None else down
        return g.linear(h, f"{name}.down_proj", down, role="down_proj")
