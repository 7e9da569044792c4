"""Images by address, from hosts that the person who started the server allowed.

Contract: a server that fetches what strangers name can be made to read its own network (SSRF). So:
no host unless listed; http and https only; the name is resolved once, every address it has must be
public, and the connection goes to just that address; no redirects; limits of size and time.
"""

from __future__ import annotations

import http.client
import ipaddress
import socket
import ssl
import threading
from urllib.parse import SplitResult, urlsplit

from lite.server.errors import Refused

MAX_BYTES = 32 << 20
SECONDS = 10.0  # for everything, from the connection to the last byte
CHUNK = 1 << 16
PORTS = {"http": 80, "https": 443}
# IPv6 addresses that end in an IPv4 one: NAT64 (RFC 6052), IPv4-compatible (RFC 4291) and
# IPv4-translated (RFC 2765).
EMBEDDING = tuple(map(ipaddress.ip_network, ("64:ff9b::/96", "::/96", "::ffff:0:0:0/96")))
# All of IPv6 that is given out as global unicast (RFC 4291, 2.4), and of it, for documentation.
GLOBAL_UNICAST = ipaddress.ip_network("2000::/3")
DOCUMENTATION = ipaddress.ip_network("3fff::/20")  # RFC 9637
ISATAP = 0x5EFE  # before an IPv4 address in the last 64 bits (RFC 5214)


class Fetcher:
    """Fetches images from allowed hosts."""

    def __init__(self, hosts: tuple[str, ...]) -> None:
        """`hosts` are names; `name:port` allows another port than the scheme's own."""
        self._hosts = {host.lower().rstrip(".") for host in hosts}

    def fetch(self, url: str) -> bytes:
        """The bytes behind an address.

        Raises:
            Refused: the address is not allowed, or gives no image.
        """
        if not self._hosts:
            raise _refused("images are not fetched by this server; send a data: URL")
        parts, port = self._allowed(url)
        address = _public_address(str(parts.hostname), port)
        try:
            return _get(parts, address, port)
        except (OSError, http.client.HTTPException, ValueError):
            raise _refused(f"the image cannot be fetched from {parts.hostname}") from None

    def _allowed(self, url: str) -> tuple[SplitResult, int]:
        try:
            parts = urlsplit(url)
            host, port = parts.hostname, parts.port
        except ValueError:
            raise _refused("the image's address is no valid URL") from None
        if parts.scheme not in PORTS or not host or "@" in parts.netloc:
            raise _refused("an image's address must be a data:, http: or https: URL")
        usual = PORTS[parts.scheme]
        name = host.rstrip(".") if port in (None, usual) else f"{host.rstrip('.')}:{port}"
        if name not in self._hosts:
            raise _refused(f"images from {name[:100]} are not allowed here; send a data: URL")
        return parts, port or usual


def _public_address(host: str, port: int) -> str:
    """An address of `host`, all of whose addresses are public."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        raise _refused(f"the image's host {host[:100]} has no address") from None
    addresses = [str(entry[4][0]).partition("%")[0] for entry in found]
    if not addresses or not all(is_public(address) for address in addresses):
        raise _refused(f"the image's host {host[:100]} is in a private network")
    return addresses[0]


def is_public(address: str) -> bool:
    """Whether an IP address belongs to the public internet, and so does the IPv4 one inside it."""
    ip = ipaddress.ip_address(address)
    if isinstance(ip, ipaddress.IPv6Address):
        inner = ip.ipv4_mapped or ip.sixtofour or (ip.teredo and ip.teredo[1])
        isatap = (int(ip) >> 32) & 0xFDFFFFFF == ISATAP
        if isatap or any(ip in network for network in EMBEDDING):
            inner = ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
        if inner:
            return is_public(str(inner))
        if ip not in GLOBAL_UNICAST or ip in DOCUMENTATION:
            return False
    return ip.is_global and not ip.is_multicast


class _Connection(http.client.HTTPConnection):
    """To an address that was checked, whatever the name resolves to by now."""

    def __init__(self, parts: SplitResult, address: str, port: int) -> None:
        super().__init__(str(parts.hostname), port, timeout=SECONDS)
        self._secure = parts.scheme == "https"
        self._address = address

    def connect(self) -> None:
        self.sock = socket.create_connection((self._address, self.port), self.timeout)
        if self._secure:
            context = ssl.create_default_context()
            self.sock = context.wrap_socket(self.sock, server_hostname=self.host)


def _get(parts: SplitResult, address: str, port: int) -> bytes:
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    connection = _Connection(parts, address, port)
    connection.connect()
    # Timeouts of a socket are for each of its operations; a host that drips needs another end.
    end = threading.Timer(SECONDS, _shut, [connection.sock])
    end.start()
    try:
        connection.request("GET", target, headers={"Accept": "image/*"})
        # By then the response may own the socket, and the connection none.
        with connection.getresponse() as response:
            if response.status != http.client.OK:
                redirect = 300 <= response.status < 400
                what = "a redirect, which is not followed" if redirect else "no image"
                raise _refused(f"{parts.hostname} answers {response.status}, {what}")
            data = bytearray()
            while part := response.read(CHUNK):
                data += part
                if len(data) > MAX_BYTES:
                    raise _refused(f"the image is larger than {MAX_BYTES >> 20} MiB")
            if response.length or not end.is_alive():
                raise OSError("cut short")
        return bytes(data)
    finally:
        end.cancel()
        connection.close()


def _shut(sock: socket.socket) -> None:
    try:
        sock.shutdown(socket.SHUT_RDWR)
    except OSError:  # closed by the other end meanwhile
        return


def _refused(why: str) -> Refused:
    return Refused(400, f"{why[0].upper()}{why[1:]}.", "messages", "invalid_image_url")
