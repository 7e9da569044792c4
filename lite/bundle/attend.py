"""Which image each token attends to: the attend rules.

Contract: pure functions over token ids; training, export checks and chat all ask here, so the rule
exists once. Image numbers are 1-based; 0 means that a token attends to none. Models with gated
cross-attention follow one of the `GATED_RULES`, those with spliced tokens the last. `RULES` are
those that a checkpoint does not tell.

`following`  MultiModal-GPT and OpenFlamingo v0 as released (`attend_previous=False`): `<image>`
             attends to itself, any other token the image that comes next, and after the last image
             nothing.
`preceding`  OpenFlamingo v2 and Otter: every token attends to the last image at or before it.
`neighbours` Llama-3.2-Vision (`get_cross_attention_token_mask` of transformers): as `preceding`,
             but of images side by side a token attends to all, up to the last at or before it.
`own`        An image takes several `<image>` tokens, and each is a part of its image; text
             attends to those tokens as to any other.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lite.errors import BadInput

FOLLOWING = "following"
PRECEDING = "preceding"
NEIGHBOURS = "neighbours"
RULES = (FOLLOWING, PRECEDING)
GATED_RULES = (*RULES, NEIGHBOURS)
OWN = "own"


def image_index(
    ids: Sequence[int] | np.ndarray, image_id: int, rule: str, image_tokens: int = 1
) -> np.ndarray:
    """The image that each token attends to, or is a part of.

    Args:
        ids: token ids `[T]` of the whole conversation (the rules look both ways).
        image_id: the id of `<image>`.
        rule: `following`, `preceding`, `neighbours` or `own`.
        image_tokens: `<image>` tokens that stand for one image, under `own`.

    Returns:
        int32 `[T]`: 0 for no image, otherwise j for the j-th image of `ids`; of several the last.

    Raises:
        BadInput: the rule is unknown, or `ids` hold a part of an image only.

    Source: `MaskedCrossAttention` of open_flamingo 0.0.2 with `only_attend_immediate_media`.
    """
    is_image = np.asarray(ids) == image_id
    count = np.cumsum(is_image)
    if rule == OWN:
        # Where a run of images ends, the last of them must be complete.
        ends = is_image & ~np.append(is_image[1:], False)
        if (count[ends] % image_tokens).any():
            raise BadInput(
                f"An image takes {image_tokens} <image> tokens of this model, but the prompt holds "
                f"a part of one; give all of them."
            )
        return np.where(is_image, (count - 1) // image_tokens + 1, 0).astype(np.int32)
    if rule in (PRECEDING, NEIGHBOURS):
        return count.astype(np.int32)
    if rule != FOLLOWING:
        raise BadInput(
            f"The attend rule {rule!r} is unknown; choose one of {', '.join(GATED_RULES)}."
        )
    following = np.where(is_image, count, count + 1)
    total = count[-1] if count.size else 0
    return np.where(following > total, 0, following).astype(np.int32)


def first_image(ids: Sequence[int] | np.ndarray, image_id: int) -> np.ndarray:
    """The first image that each token attends to under `neighbours`, int32 `[T]`; 0 for no image.

    The last one is `image_index`'s, and a token attends to those between them too.
    """
    is_image = np.asarray(ids) == image_id
    opens = is_image & ~np.append(False, is_image[:-1])
    return np.maximum.accumulate(np.where(opens, np.cumsum(is_image), 0)).astype(np.int32)
