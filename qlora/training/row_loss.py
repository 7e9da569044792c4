"""The loss of one packed row.

Contract: one module whose forward pass is all that a training step differentiates, so that any
engine for several GPUs can wrap it. Logits are never held for a whole row.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from qlora.data.rows import Row
from qlora.model import VisionLanguageModel
from qlora.model.loss import chunked_cross_entropy


class RowLoss(nn.Module):
    """`row, visual [1, n, L, D_vis] or None -> weighted sum of the row's token losses`."""

    def __init__(self, model: VisionLanguageModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, row: Row, visual: Tensor | None) -> Tensor:
        head = self.model.lang_encoder.lm_head.weight
        ids, positions, index, targets, weights = (
            tensor.to(head.device)
            for tensor in (row.ids, row.positions, row.index, row.targets, row.weights)
        )
        # Adapters are float32; with a bfloat16 base they multiply in bfloat16 too.
        mixed = head.dtype == torch.bfloat16
        with torch.autocast(head.device.type, torch.bfloat16, enabled=mixed):
            hidden = self.model.hidden(
                ids[None], visual=visual, index=index[None], positions=positions[None]
            )
        return chunked_cross_entropy(hidden[0].to(head.dtype), head, targets, weights)
