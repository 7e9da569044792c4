"""Parameters and operations of the connectors (`qlora.model.connectors`, `qlora.model.perceiver`).

Contract: pure arithmetic; counts equal those of the modules, exactly. Operations are two for each
weight and token, norms and attention's products left out.
"""

from __future__ import annotations

from qlora.model.connectors.abstractor import Abstractor
from qlora.model.connectors.perceiver import Perceiver
from qlora.model.connectors.projector import Projector
from qlora.model.parts import ConnectorConfig

Connector = ConnectorConfig


def parameters(connector: Connector) -> int:
    """Number of values."""
    if isinstance(connector, Perceiver):
        width, inner = connector.width, connector.dim_head * connector.heads
        attention = 4 * width * inner + 4 * width + 4 * connector.dim_head * connector.head_norms
        feed = 8 * width * width + 2 * width
        return connector.latents * width + connector.depth * (attention + feed) + 2 * width
    if isinstance(connector, Abstractor):
        dim, media, inner = connector.dim, connector.dim_media, connector.inner
        attention = 2 * (dim * dim + dim) + 2 * (media * dim + dim) + 2 * dim + 2 * media
        feed = 3 * dim * inner + 2 * inner + dim + 2 * inner + 2 * dim
        ends = connector.queries * dim + dim * connector.width + 2 * connector.width
        return connector.depth * (attention + feed) + ends
    assert isinstance(connector, Projector)
    first = connector.dim_media * connector.width
    biases = connector.depth * connector.width if connector.bias else 0
    return first + (connector.depth - 1) * connector.width**2 + biases


def operations(connector: Connector, tokens: int) -> int:
    """Operations of one image's forward pass, whose encoder gives `tokens`."""
    if isinstance(connector, Perceiver):
        width, inner = connector.width, connector.dim_head * connector.heads
        layer = connector.latents * (2 * width * inner + 8 * width * width)
        return 2 * connector.depth * (layer + (tokens + connector.latents) * 2 * width * inner)
    if isinstance(connector, Abstractor):
        dim, queries = connector.dim, connector.queries
        layer = queries * (2 * dim * dim + 3 * dim * connector.inner)
        layer += (queries + tokens) * 2 * connector.dim_media * dim
        return 2 * (connector.depth * layer + queries * dim * connector.width)
    return 2 * tokens * parameters(connector)
