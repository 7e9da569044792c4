"""Settings of a server."""

from __future__ import annotations

from dataclasses import dataclass

from lite.errors import BadInput

LOOPBACK = ("127.0.0.1", "localhost", "::1")


@dataclass(frozen=True)
class Settings:
    """Limits of a server, and who may use it.

    Attributes:
        parallel: sequences at a time, each with a KV cache of its own.
        queue: requests that may wait beyond them.
        api_key: bearer key that clients must send; None lets everyone in.
        max_images: in one conversation.
        max_messages: in one conversation.
        max_body: bytes of a request.
        max_connections: at a time.
        header_seconds: from a connection, or the first byte of a further request, to the end of the
            request's header.
        body_seconds: from there to the end of its body.
        image_hosts: hosts from which images may be fetched.
        hosts: names by which clients may call the server; empty for any. None is the names of this
            machine where there is no key: a page of another origin can reach a local port under a
            name of its own (DNS rebinding), unless the name or a key is checked.
        origins: origins of other pages that may use the server from a browser; `*` for any.
        aliases: further names of the model; `*` for any.
        isolate: keep what is cached for one bearer key apart from what is cached for another.

    Raises:
        BadInput: the key is empty, or cannot be sent in a header.
    """

    parallel: int = 2
    queue: int = 16
    api_key: str | None = None
    max_images: int = 16
    max_messages: int = 1024
    max_body: int = 64 << 20
    max_connections: int = 512
    header_seconds: float = 10.0
    body_seconds: float = 60.0
    image_hosts: tuple[str, ...] = ()
    hosts: tuple[str, ...] | None = None
    origins: tuple[str, ...] = ()
    aliases: tuple[str, ...] = ()
    isolate: bool = False

    def __post_init__(self) -> None:
        key = self.api_key
        # A header's value ends where its last visible character does (RFC 9110, 5.5).
        sendable = key is None or (key.isascii() and key.isprintable() and key == key.strip())
        if key == "" or not sendable:
            raise BadInput(
                "The API key must be printable ASCII without spaces around it, as a header can "
                "carry it; choose another."
            )

    @property
    def allowed_hosts(self) -> tuple[str, ...]:
        """Names by which clients may call the server; empty for any."""
        if self.hosts is not None:
            return self.hosts
        return () if self.api_key else LOOPBACK
