"""The chunked loss is cross-entropy, in value and in gradients, without its memory."""

import math
from typing import Any

import pytest
import torch
from torch.nn.functional import cross_entropy

from qlora.data.encode import IGNORE
from qlora.model.loss import chunked_cross_entropy

ROWS, WIDTH, VOCAB = 41, 16, 97


def problem(dtype: torch.dtype = torch.float32, seed: int = 0) -> dict[str, Any]:
    random = torch.Generator().manual_seed(seed)
    targets = torch.randint(0, VOCAB, (ROWS,), generator=random)
    targets[torch.rand(ROWS, generator=random) < 0.4] = IGNORE
    return {
        "hidden": torch.randn(ROWS, WIDTH, generator=random).to(dtype).requires_grad_(),
        "head": torch.randn(VOCAB, WIDTH, generator=random).to(dtype).requires_grad_(),
        "targets": targets,
        "weights": torch.rand(ROWS, generator=random),
    }


def plain(hidden: Any, head: Any, targets: Any, weights: Any) -> torch.Tensor:
    logits = (hidden @ head.T).float()
    return (weights * cross_entropy(logits, targets, ignore_index=IGNORE, reduction="none")).sum()


def gradients(loss: torch.Tensor, p: dict[str, Any]) -> list[torch.Tensor]:
    # A factor, as the training step has one.
    return [*torch.autograd.grad(0.25 * loss, (p["hidden"], p["head"]))]


@pytest.mark.parametrize("chunk", [1, 7, 512])
def test_it_equals_cross_entropy(chunk: int) -> None:
    p = problem()
    ours, theirs = chunked_cross_entropy(**p, chunk=chunk), plain(**p)
    assert ours.dtype is torch.float32
    assert torch.allclose(ours, theirs, rtol=1e-5)
    for one, other in zip(gradients(ours, p), gradients(theirs, p), strict=True):
        assert torch.allclose(one, other, rtol=1e-5, atol=1e-5)


def test_it_equals_cross_entropy_in_bfloat16() -> None:
    p = problem(torch.bfloat16)
    ours, theirs = chunked_cross_entropy(**p, chunk=8), plain(**p)
    assert ours.dtype is torch.float32
    assert torch.allclose(ours, theirs, rtol=1e-5)
    for one, other in zip(gradients(ours, p), gradients(theirs, p), strict=True):
        assert one.dtype is torch.bfloat16
        assert (one - other).float().norm() <= 2e-2 * other.float().norm()


def test_a_frozen_head_gets_no_gradient() -> None:
    p = problem()
    p["head"].requires_grad_(False)
    chunked_cross_entropy(**p).backward()
    assert p["head"].grad is None
    assert p["hidden"].grad[p["targets"] == IGNORE].abs().max() == 0
    assert p["hidden"].grad[p["targets"] != IGNORE].abs().min(1).values.max() > 0


def test_without_gradients_it_is_the_same_value() -> None:
    p = problem()
    with torch.no_grad():
        loss = chunked_cross_entropy(**p)
    assert not loss.requires_grad
    assert torch.equal(loss, chunked_cross_entropy(**p))


def test_rows_without_a_target_may_hold_anything() -> None:
    p = problem()
    expected = chunked_cross_entropy(**p)
    with torch.no_grad():
        p["hidden"][p["targets"] == IGNORE] = math.nan
        p["weights"][p["targets"] == IGNORE] = math.nan
    loss = chunked_cross_entropy(**p)
    loss.backward()
    assert torch.equal(loss, expected)
    assert p["hidden"].grad.isfinite().all()


def test_a_value_that_is_not_finite_shows() -> None:
    p = problem()
    with torch.no_grad():
        p["hidden"][(p["targets"] != IGNORE).nonzero()[0]] = math.nan
    assert not chunked_cross_entropy(**p).isfinite()


def test_nothing_to_learn_is_no_loss() -> None:
    p = problem()
    p["targets"][:] = IGNORE
    loss = chunked_cross_entropy(**p)
    loss.backward()
    assert loss == 0
    assert p["hidden"].grad.abs().max() == 0
