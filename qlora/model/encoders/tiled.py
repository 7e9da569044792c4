"""Llama-3.2-Vision's tower, and the tiles that it takes.

Contract: transformers' `MllamaVisionModel`, fed from pixels that say by themselves how an image is
laid out (`lite.image.preprocessing.to_pixels`): tiles that it does not fill are NaN. They run
through the tower too, as the tokens of the others attend to them, but no token of theirs comes out.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import MllamaVisionModel
from transformers.models.mllama.configuration_mllama import MllamaVisionConfig

from lite.image.tiles import layouts


@dataclass(frozen=True)
class TiledEncoder:
    """All tiles of an image at once, and outputs of several layers side by side.

    Attributes:
        vision: as transformers knows it.
    """

    vision: MllamaVisionConfig
    name = "tiled"
    padded = True

    @property
    def width(self) -> int:
        """Of a token: the last layer's output, and before the connector those between."""
        return int(self.vision.vision_output_dim)

    @property
    def tile_tokens(self) -> int:
        """Tokens of one tile, the class token first."""
        return int(self.vision.image_size // self.vision.patch_size) ** 2 + 1

    @property
    def tokens(self) -> int:
        """Tokens of one image that the connector gets, those of tiles it does not fill included."""
        return int(self.vision.max_num_tiles) * self.tile_tokens

    def build(self) -> MllamaVisionModel:
        """The tower, on the meta device."""
        with torch.device("meta"):
            return MllamaVisionModel(self.vision)

    def encode(self, encoder: MllamaVisionModel, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Tokens of each image's tiles.

        Args:
            encoder: the tower.
            pixels: `[n, 3, S, S]` with S the side of a tile times their largest number.

        Returns:
            `[n, tokens, width]` and, 1 for tokens of tiles that are filled and otherwise 0,
            `[n, tokens, 1]`.
        """
        most = encoder.max_num_tiles
        tiles, numbers = split(pixels, most)
        used = torch.tensor([0, *(rows * columns for rows, columns in layouts(most))])
        filled = torch.arange(most) < used[numbers.cpu()][:, None]  # [n, tiles]
        filled = filled.to(pixels.device)
        features = encoder(
            pixel_values=tiles[:, None],
            aspect_ratio_ids=numbers[:, None],
            aspect_ratio_mask=filled[:, None].long(),
        )
        tokens = features.last_hidden_state[:, 0]  # [n, tiles, tile_tokens, width]
        mask = filled[..., None].expand(tokens.shape[:3]).flatten(1)[..., None]
        return tokens.flatten(1, 2), mask.to(tokens.dtype)


def split(pixels: Tensor, most: int) -> tuple[Tensor, Tensor]:
    """Tiles `[n, most, 3, s, s]` row by row, zeros where there is none, and layouts' numbers."""
    size = pixels.shape[-1] // most
    rows = (~pixels[:, 0, ::size, 0].isnan()).sum(1)
    columns = (~pixels[:, 0, 0, ::size].isnan()).sum(1)
    grid = pixels.unflatten(2, (most, size)).unflatten(4, (most, size))  # [n, 3, r, s, c, s]
    grid = grid.permute(0, 2, 4, 1, 3, 5)  # [n, r, c, 3, s, s]
    known = {shape: number for number, shape in enumerate(layouts(most), start=1)}
    tiles = pixels.new_zeros(len(pixels), most, *grid.shape[3:])
    numbers = []
    for i, (r, c) in enumerate(zip(rows.tolist(), columns.tolist(), strict=True)):
        tiles[i, : r * c] = grid[i, :r, :c].flatten(0, 1)
        numbers.append(known[r, c])
    return tiles, torch.tensor(numbers, device=pixels.device)
