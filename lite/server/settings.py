"""Settings of a server."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Settings:
    """Limits of a server, and who may use it.

    Attributes:
        parallel: sequences at a time, each with a KV cache of its own.
        queue: requests that may wait beyond them.
        api_key: bearer key that clients must send; None lets everyone in.
        max_images: in one conversation.
        max_body: bytes of a request.
        image_hosts: hosts from which images may be fetched.
        hosts: names by which clients may call the server; empty for any.
    """

    parallel: int = 2
    queue: int = 16
    api_key: str | None = None
    max_images: int = 16
    max_body: int = 64 << 20
    image_hosts: tuple[str, ...] = ()
    hosts: tuple[str, ...] = ()
