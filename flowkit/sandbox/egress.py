"""A program's only way out: an HTTP proxy that knows its list of hosts, and where a name really leads.

It listens inside the program's network namespace and connects from the supervisor's. A name is resolved once, the
address is judged, and that address is connected to: there is no second look-up that could say something else. Addresses
of this machine, of private networks and of networks' own services are refused, however they are written, unless the
operator has said that they may be reached.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import socket
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from flowkit.sandbox.contained import Traffic
from flowkit.sandbox.errors import CannotStart

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

MOST_CONNECTIONS: Final = 64
IDLE_SEC: Final = 120.0
CONNECT_SEC: Final = 10.0
LONGEST_HEAD: Final = 16 * 1024
_CHUNK: Final = 64 * 1024

_NAT64: Final = (ipaddress.IPv6Network("64:ff9b::/96"), ipaddress.IPv6Network("64:ff9b:1::/48"))
_COMPATIBLE: Final = ipaddress.IPv6Network("::/96")
_NOT_FORWARDED: Final = frozenset(
    {b"connection", b"proxy-connection", b"keep-alive", b"proxy-authorization", b"te", b"upgrade"}
)


class Refused(Exception):
    """What is answered instead: a status, and why."""

    def __init__(self, status: str, why: str) -> None:
        super().__init__(why)
        self.status = status


@dataclass(frozen=True, slots=True)
class Host:
    """Where a connection is to go."""

    name: str
    port: int

    @classmethod
    def parse(cls, text: str, default_port: int | None = None) -> Host:
        """Raises `ValueError`."""
        parts = urlsplit(f"//{text}")
        port = parts.port if parts.port is not None else default_port
        if not parts.hostname or parts.username is not None or port is None or not 0 < port < 65536 or parts.path:
            raise ValueError(f"{text!r} is no host:port")
        return cls(parts.hostname.rstrip(".").encode("idna").decode().lower(), port)


class Egress:
    """The way out of one program. `allowed`: its `host:port`s; `reachable`: networks that are not refused. Raises
    `CannotStart` for either where it cannot be read."""

    def __init__(self, allowed: Iterable[str], *, reachable: Iterable[str] = ()) -> None:
        try:
            self._allowed = frozenset(Host.parse(text) for text in allowed)
        except (ValueError, UnicodeError) as error:
            raise CannotStart("E_NETWORK", f"the network list cannot be read: {error}", 'write "host:port"') from None
        self._reachable = [ipaddress.ip_network(network) for network in reachable]
        self.traffic = Traffic()
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()

    async def serve(self, listener: socket.socket) -> Traffic:
        """Begin to take connections there; what goes through is counted in what is returned."""
        self._server = await asyncio.start_server(self._accept, sock=listener, limit=LONGEST_HEAD)
        return self.traffic

    async def close(self) -> None:
        if self._server is not None:
            self._server.close()
        for task in self._connections:
            task.cancel()
        if self._connections:
            await asyncio.wait(self._connections)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        try:
            await self._carry(reader, writer)
        except Refused as refused:
            with contextlib.suppress(OSError):
                writer.write(_answer(refused))
                await writer.drain()
        except (OSError, TimeoutError, asyncio.IncompleteReadError):
            pass  # one of the two ends has gone, or says nothing any more; the other learns it by the end of the stream
        finally:
            self._connections.discard(task)
            writer.close()

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async with asyncio.timeout(IDLE_SEC):
            head = await _read_head(reader)  # first, as what is not read makes the answer a reset
        if len(self._connections) > MOST_CONNECTIONS:
            raise Refused("503 Service Unavailable", f"a program may have {MOST_CONNECTIONS} connections at once")
        host, forwarded = _read_request(head)
        theirs, upstream = await self._connect(host)
        try:
            if forwarded:
                self.traffic.sent += len(forwarded)
                upstream.write(forwarded)
            else:
                writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
            async with asyncio.TaskGroup() as both:
                both.create_task(self._pump(reader, upstream, sent=True))
                both.create_task(self._pump(theirs, writer, sent=False))
        except* (OSError, TimeoutError):
            pass  # as above
        finally:
            upstream.close()

    async def _connect(self, host: Host) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if host not in self._allowed:
            raise Refused("403 Forbidden", f"{host.name}:{host.port} is not in the program's network list")
        try:
            async with asyncio.timeout(CONNECT_SEC):
                found = await asyncio.get_running_loop().getaddrinfo(host.name, host.port, type=socket.SOCK_STREAM)
                addresses = [ipaddress.ip_address(where[0]) for *_, where in found]
                address = next((one for one in addresses if self._may_reach(one)), None)
                if address is None:
                    raise Refused("403 Forbidden", f"{host.name} leads to {addresses[0]}, which may not be reached")
                return await asyncio.open_connection(str(address), host.port, limit=_CHUNK)
        except (OSError, TimeoutError) as error:
            raise Refused("502 Bad Gateway", f"{host.name}:{host.port} cannot be reached: {error}") from None

    def _may_reach(self, address: Address) -> bool:
        address = really(address)
        return is_public(address) or any(
            address.version == network.version and address in network for network in self._reachable
        )

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, sent: bool) -> None:
        while True:
            async with asyncio.timeout(IDLE_SEC):
                data = await reader.read(_CHUNK)
                if not data:
                    break
                writer.write(data)
                await writer.drain()
            if sent:
                self.traffic.sent += len(data)
            else:
                self.traffic.received += len(data)
        if writer.can_write_eof():
            writer.write_eof()


def really(address: Address) -> Address:
    """The IPv4 address that an IPv6 address merely wraps, where it does."""
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return address.ipv4_mapped
        if address.sixtofour is not None:
            return address.sixtofour
        if any(address in network for network in (*_NAT64, _COMPATIBLE)) and int(address) > 1:
            return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return address


def is_public(address: Address) -> bool:
    """Whether it is somebody's on the Internet, and not one of a machine, a private network or a special use."""
    if isinstance(address, ipaddress.IPv6Address) and (address.teredo is not None or address.is_site_local):
        return False
    return address.is_global and not (address.is_multicast or address.is_reserved or address.is_unspecified)


async def _read_head(reader: asyncio.StreamReader) -> bytes:
    try:
        return await reader.readuntil(b"\r\n\r\n")
    except asyncio.LimitOverrunError:
        raise Refused("431 Request Header Fields Too Large", f"a request's head is over {LONGEST_HEAD} bytes") from None


def _read_request(head: bytes) -> tuple[Host, bytes]:
    """Where to, and what is to be said there: nothing for a tunnel."""
    first, *lines = head[:-4].split(b"\r\n")
    try:
        method, target, version = first.decode("ascii").split(" ")
        if method == "CONNECT":
            return Host.parse(target), b""
        parts = urlsplit(target)
        if parts.scheme != "http":
            raise ValueError("a proxy is asked for http://... or CONNECT")
        host = Host.parse(parts.netloc, 80)
    except (ValueError, UnicodeError) as error:
        raise Refused("400 Bad Request", str(error)) from None
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    kept = [line for line in lines if line.partition(b":")[0].strip().lower() not in _NOT_FORWARDED]
    return host, b"\r\n".join([f"{method} {path} {version}".encode(), *kept, b"Connection: close", b"", b""])


def _answer(refused: Refused) -> bytes:
    body = f"{refused}\n".encode()
    return (
        f"HTTP/1.1 {refused.status}\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: {len(body)}\r\n"
        "Connection: close\r\n\r\n"
    ).encode() + body
