"""Cross-entropy over the vocabulary without ever holding all logits.

Contract: value and gradients are those of a linear head followed by `torch.nn.functional.
cross_entropy`, weighted and summed. Logits exist for one chunk of rows at a time, and the gradient
of the hidden states is computed right beside them, in the forward pass: the method of Liger Kernel
(arXiv 2410.10989, fused linear cross-entropy) and Cut Cross-Entropy (arXiv 2411.09009), in plain
torch, so that it runs on every device.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from qlora.data.encode import IGNORE

CHUNK = 512  # rows; 32000 float32 logits each are 66 MB


def chunked_cross_entropy(
    hidden: Tensor, head: Tensor, targets: Tensor, weights: Tensor, chunk: int = CHUNK
) -> Tensor:
    """`sum_i weights[i] * -log softmax(hidden[i] @ head.T)[targets[i]]`, a float32 scalar.

    Rows without a target never reach the head: whatever is in them, not-a-number included, adds
    nothing, and their gradient is zero. Without any target the loss is 0. A value that is not
    finite in any other row makes the loss not finite, so that the caller can see it.

    Args:
        hidden: `[N, D]`, of any float type.
        head: weight `[V, D]` of the same type.
        targets: int64 `[N]`, `IGNORE` for rows without a loss.
        weights: float `[N]`; no gradient flows into them.
        chunk: rows whose logits are held at a time.
    """
    if not torch.is_grad_enabled():
        hidden, head = hidden.detach(), head.detach()
    return _ChunkedCrossEntropy.apply(hidden, head, targets, weights, chunk)


class _ChunkedCrossEntropy(Function):
    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, head: Tensor, targets: Tensor, weights: Tensor, chunk: int
    ) -> Tensor:
        to_hidden, to_head = ctx.needs_input_grad[:2]
        loss = torch.zeros((), dtype=torch.float32, device=hidden.device)
        d_hidden = torch.zeros_like(hidden) if to_hidden else None
        # Sums over many rows: in float32 whatever the head's type.
        d_head = torch.zeros_like(head, dtype=torch.float32) if to_head else None
        for rows in (targets != IGNORE).nonzero()[:, 0].split(chunk):
            x, weight = hidden[rows], weights[rows].float()
            target = targets[rows, None]
            logits = (x @ head.T).float()  # [n, V]
            normalizer = logits.logsumexp(dim=-1, keepdim=True)
            loss += (weight * (normalizer - logits.gather(1, target))[:, 0]).sum()
            if not (to_hidden or to_head):
                continue
            # d loss / d logits = weight * (softmax - one-hot), in the logits' memory.
            d_logits = logits.sub_(normalizer).exp_()
            d_logits.scatter_add_(1, target, torch.full_like(weight, -1.0)[:, None])
            d_logits = d_logits.mul_(weight[:, None]).to(head.dtype)
            if d_hidden is not None:
                d_hidden[rows] = (d_logits @ head).to(hidden.dtype)
            if d_head is not None:
                d_head += d_logits.T @ x
        ctx.save_for_backward(d_hidden, d_head)
        ctx.head_type = head.dtype
        return loss

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_loss: Tensor) -> tuple[Tensor | None, Tensor | None, None, None, None]:
        d_hidden, d_head = ctx.saved_tensors
        if d_hidden is not None:
            d_hidden = d_hidden * d_loss.to(d_hidden.dtype)
        if d_head is not None:
            d_head = (d_head * d_loss).to(ctx.head_type)
        return d_hidden, d_head, None, None, None
