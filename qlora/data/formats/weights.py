"""How much the loss of an answer counts, as records mark it.

Contract: a mark is honoured or refused. OpenAI and Mistral mark a message with `weight` 0 or 1,
ms-swift and InternLM with `loss` true or false, others with `loss_weight`, `train` or `training`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from qlora.data.conversation import BadRecord

MESSAGE_KEYS = ("weight", "loss_weight", "loss", "train", "training", "trainable")
# Of a whole record only these: `weight` or `loss` may be what somebody measured of it.
RECORD_KEYS = ("loss_weight",)


def message_weight(message: Mapping[str, Any]) -> float:
    """What a message's marks say: 1 where there is none, 0 for one that is only context.

    Raises:
        BadRecord: a mark is no number of at least 0 and no truth value, or two contradict.
    """
    return _weight(message, MESSAGE_KEYS)


def record_weight(record: Mapping[str, Any]) -> float:
    """The same for all answers of a record."""
    return _weight(record, RECORD_KEYS)


def _weight(marked: Mapping[str, Any], keys: tuple[str, ...]) -> float:
    found = {float(_number(marked[key], key)) for key in keys if marked.get(key) is not None}
    if len(found) > 1:
        raise BadRecord("different weights for one answer")
    return found.pop() if found else 1.0


def _number(value: Any, key: str) -> float:
    if not isinstance(value, (bool, int, float)) or not 0 <= value < math.inf:
        raise BadRecord(f"{key} that is no number of at least 0")
    return value
