"""The TCP connection to the supplier, before TLS: to one of a name's addresses, or through a proxy with CONNECT."""

import asyncio
import base64
import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from aiohappyeyeballs import start_connection

from adapter.core.errors import Stop
from adapter.ports import NotSent
from adapter.settings import secret
from adapter.transport import failures
from adapter.transport.address import endpoint, parsed

_NEXT_ADDRESS: Final = 0.25
"""Seconds after which the next address is tried in parallel to one that does not answer (RFC 8305 section 5)."""

_PROXY_HEAD: Final = 65_536
"""Most bytes of a proxy's answer to CONNECT."""

_INTERIM: Final = re.compile(rb"\A(?:HTTP/1\.[01] 1[0-9]{2}\b.*?\r\n\r\n)+", re.DOTALL)
"""Heads that may come before the one that answers (RFC 9110 section 15.2)."""


async def resolve(host: str, port: int) -> list[Any]:
    """The addresses of that name, as returned by getaddrinfo. Raises OSError."""
    return await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)


async def reach(addresses: list[Any]) -> socket.socket:
    """A connection to the address that answers first. Raises OSError."""
    return await start_connection(addresses, happy_eyeballs_delay=_NEXT_ADDRESS)


@contextmanager
def handed_over(link: socket.socket) -> Iterator[None]:
    """While a transport is made of `link`, which has it from then on, and closes it if that fails. asyncio's goes on if
    it is cancelled before TLS begins: it then finds the end of the connection.
    """
    try:
        yield
    except BaseException:
        with suppress(OSError):
            link.shutdown(socket.SHUT_RDWR)
        raise


@dataclass(frozen=True, slots=True)
class Proxy:
    host: str
    port: int
    credentials: str | None
    """`user:password`."""

    async def connect(self, link: socket.socket, host: str, port: int) -> None:
        """Have the proxy at the other end of `link` connect it to that port. Raises NotSent, having closed `link`."""
        loop = asyncio.get_running_loop()
        try:
            await loop.sock_sendall(link, self._request(host, port))
            answer = part = await loop.sock_recv(link, 4096)
            while part and b"\r\n\r\n" not in (answer := _INTERIM.sub(b"", answer)) and len(answer) < _PROXY_HEAD:
                part = await loop.sock_recv(link, 4096)
                answer += part
        except OSError as error:
            link.close()
            raise failures.not_tunnelled(error) from None
        except BaseException:
            link.close()
            raise
        said = re.match(rb"HTTP/1\.[01] ([0-9]{3})\b", answer)
        status = said[1].decode() if said else "no status"
        if not status.startswith("2"):
            link.close()
            raise NotSent("proxy", f"the proxy answered CONNECT with {status}")
        # A server of TLS or HTTP is silent until the client has sent something: bytes after the head are not its own.
        if not answer.endswith(b"\r\n\r\n"):
            link.close()
            raise NotSent("proxy", f"the proxy answered CONNECT with {status}, but with more than a head, or less")

    def _request(self, host: str, port: int) -> bytes:
        place = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        lines = f"CONNECT {place} HTTP/1.1\r\nHost: {place}\r\n"
        if self.credentials is not None:
            lines += f"Proxy-Authorization: Basic {base64.b64encode(self.credentials.encode()).decode()}\r\n"
        return f"{lines}\r\n".encode("latin-1")


def proxy(address: str, credentials: Path | None) -> Proxy:
    """The proxy of these settings. Raises Stop."""
    host, port = endpoint(parsed("ADAPTER_SUPPLIER__PROXY__URL", address))
    return Proxy(host, port, None if credentials is None else _credentials(credentials))


def _credentials(file: Path) -> str:
    setting = "ADAPTER_SUPPLIER__PROXY__CREDENTIALS"
    line = secret(setting, file).strip()
    if ":" not in line:
        raise Stop(f"{setting}: {file} has no colon; write one line, user:password")
    return line
