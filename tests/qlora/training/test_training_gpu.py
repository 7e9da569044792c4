"""What only a GPU shows: autocast there has other rules than on a CPU."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from qlora.model.decoder import GatedDecoderLayer
from qlora.training.log import read_log
from tests.qlora.training.runs import small, train

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")


@pytest.mark.parametrize("base", ["nf4", "none"])
def test_a_run_in_bfloat16_learns_and_keeps_its_activations_in_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, base: str
) -> None:
    seen = set()
    compute = GatedDecoderLayer._compute

    def noting(
        self: GatedDecoderLayer, hidden_states: torch.Tensor, *args: object, **kwargs: object
    ):  # type: ignore[no-untyped-def]
        made = compute(self, hidden_states, *args, **kwargs)
        seen.update((hidden_states.dtype, made.dtype))
        return made

    monkeypatch.setattr(GatedDecoderLayer, "_compute", noting)
    output = tmp_path / "run"
    settings = ("model.compute=bfloat16", f"model.base={base}", "training.steps=24")
    train(small(output, *settings))
    losses = [record["loss"] for record in read_log(output / "log.jsonl") if "loss" in record]
    assert sum(losses[-4:]) < 0.8 * sum(losses[:4])
    assert seen == {torch.bfloat16}
