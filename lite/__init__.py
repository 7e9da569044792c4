"""The edge runtime: chat about images with a quantized bundle, without torch or any network.

Contract: needs numpy, ONNX Runtime, tokenizers and Pillow only; imports nothing of `qlora`,
`export` or `bench`.

Example:
    >>> import lite
    >>> chat = lite.load("bundle").chat()  # lite.load() opens the demo model
    >>> for piece in chat.ask("What is this?", image="photo.jpg"):
    ...     print(piece.text, end="")
"""

from lite.answer import Piece, Timings
from lite.chat import Chat
from lite.errors import BadInput, LiteError
from lite.model import Model, load

__all__ = ["BadInput", "Chat", "LiteError", "Model", "Piece", "Timings", "load"]
