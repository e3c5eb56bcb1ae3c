"""Programs reach the hosts of their list, by the address that was judged, and nothing else."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from flowkit.sandbox import egress
from flowkit.sandbox.bubblewrap import BubblewrapRuntime
from flowkit.sandbox.egress import Egress, Host, is_public, really
from flowkit.sandbox.errors import CannotStart
from flowkit.sandbox.runtime import Limits, Program
from tests.sandbox.programs import PYTHON, READABLE, run, script


@pytest.fixture
async def site() -> AsyncIterator[int]:
    """The port of a small HTTP server on this machine's loopback."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        line = head.split(b"\r\n")[0]
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s" % (len(line), line))
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    yield server.sockets[0].getsockname()[1]
    server.close()


async def ask(way_out: Egress, request: bytes) -> bytes:
    listener = socket.create_server(("127.0.0.1", 0))
    port = listener.getsockname()[1]
    await way_out.serve(listener)
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request)
    answer = await reader.read()
    writer.close()
    await way_out.close()
    return answer


async def test_an_allowed_host_is_reached_and_what_goes_through_is_counted(site: int) -> None:
    way_out = Egress([f"localhost:{site}"], reachable=["127.0.0.0/8", "::1/128"])

    answer = await ask(
        way_out, b"GET http://localhost:%d/a?b=c HTTP/1.1\r\nHost: x\r\nProxy-Authorization: y\r\n\r\n" % site
    )

    assert answer.endswith(b"GET /a?b=c HTTP/1.1")
    assert way_out.traffic.received == len(answer)
    assert way_out.traffic.sent > 20


async def test_a_tunnel_carries_both_ways(site: int) -> None:
    way_out = Egress([f"127.0.0.1:{site}"], reachable=["127.0.0.1/32"])

    answer = await ask(way_out, b"CONNECT 127.0.0.1:%d HTTP/1.1\r\n\r\nGET / HTTP/1.1\r\n\r\n" % site)

    assert answer.startswith(b"HTTP/1.1 200 Connection established\r\n\r\n")
    assert answer.endswith(b"GET / HTTP/1.1")


@pytest.mark.parametrize(
    ("request_line", "status"),
    [
        (b"CONNECT example.com:443 HTTP/1.1", b"403"),
        (b"CONNECT localhost:1 HTTP/1.1", b"403"),
        (b"GET http://localhost:1/ HTTP/1.1", b"403"),
        (b"GET / HTTP/1.1", b"400"),
        (b"GET ftp://localhost/ HTTP/1.1", b"400"),
        (b"CONNECT localhost HTTP/1.1", b"400"),
        (b"CONNECT user@localhost:80 HTTP/1.1", b"400"),
        (b"nonsense", b"400"),
        (b"GET " + b"x" * 20_000, b"431"),
    ],
)
async def test_what_is_not_on_the_list_or_no_request_is_refused(request_line: bytes, status: bytes) -> None:
    answer = await ask(Egress(["localhost:2"], reachable=["127.0.0.0/8"]), request_line + b"\r\n\r\n")

    assert answer.split(b" ")[1] == status


@pytest.mark.parametrize(
    "host", ["localhost", "127.0.0.1", "2130706433", "0x7f.1", "0.0.0.0", "[::1]", "[::ffff:127.0.0.1]"]
)
async def test_a_listed_name_of_this_machine_is_refused_however_it_is_written(host: str, site: int) -> None:
    answer = await ask(Egress([f"{host}:{site}"]), f"CONNECT {host}:{site} HTTP/1.1\r\n\r\n".encode())

    assert answer.split(b" ")[1] in (b"403", b"502")


async def test_a_name_is_resolved_once_and_the_judged_address_is_connected_to(
    site: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    loop = asyncio.get_running_loop()
    real = loop.getaddrinfo

    async def rebinding(host: object, port: int, **more: int) -> object:
        asked.append(str(host))
        if host == "rebinding.test":
            address = "127.0.0.2" if len(asked) == 1 else "127.0.0.1"
            return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port))]
        return await real(host, port, **more)

    monkeypatch.setattr(loop, "getaddrinfo", rebinding)
    answer = await ask(
        Egress([f"rebinding.test:{site}"], reachable=["127.0.0.1/32"]),
        f"CONNECT rebinding.test:{site} HTTP/1.1\r\n\r\n".encode(),
    )

    assert answer.split(b" ")[1] == b"403"
    assert asked == ["rebinding.test"]


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1", "10.0.0.1", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1", "0.0.0.0", "224.0.0.1",
        "240.0.0.1", "255.255.255.255", "192.0.2.1", "198.18.0.1", "::", "::1", "fe80::1", "fc00::1", "fec0::1",
        "ff02::1", "::ffff:10.0.0.1", "::ffff:169.254.169.254", "64:ff9b::7f00:1", "64:ff9b:1::a00:1", "2002:7f00:1::",
        "::127.0.0.1", "2001:0:1::1", "2001:db8::1",
    ],
)  # fmt: skip
def test_addresses_that_are_nobodys_on_the_internet_are_not_public(address: str) -> None:
    assert not is_public(really(ipaddress.ip_address(address)))


@pytest.mark.parametrize("address", ["1.1.1.1", "2606:4700::1111", "::ffff:1.1.1.1", "64:ff9b::101:101"])
def test_addresses_of_the_internet_are_public(address: str) -> None:
    assert is_public(really(ipaddress.ip_address(address)))


def test_hosts_are_compared_as_names_are() -> None:
    assert Host.parse("Example.COM.:443") == Host.parse("example.com:443")
    assert Host.parse("bücher.example:443").name == "xn--bcher-kva.example"


@pytest.mark.parametrize(
    "entry", ["example.com", "example.com:0", "example.com:99999", "", ":80", "http://example.com:80"]
)
def test_a_list_that_cannot_be_read_is_said(entry: str) -> None:
    with pytest.raises(CannotStart, match="host:port"):
        Egress([entry])


async def test_too_many_connections_are_refused(site: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(egress, "MOST_CONNECTIONS", 0)

    answer = await ask(Egress(["localhost:2"]), b"CONNECT localhost:2 HTTP/1.1\r\n\r\n")

    assert answer.split(b" ")[1] == b"503"


async def test_a_connection_that_says_nothing_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(egress, "IDLE_SEC", 0.05)

    assert await ask(Egress(["localhost:2"]), b"CONN") == b""


FETCH = """
import sys, urllib.request, urllib.error
for url in sys.argv[1:]:
    try:
        print(urllib.request.urlopen(url, timeout=10).read().decode())
    except urllib.error.HTTPError as error:
        print(error.code, error.read().decode().strip())
    except OSError as error:
        print(error)
"""


async def test_a_program_finds_its_way_out_by_the_usual_variables(site: int) -> None:
    runtime = BubblewrapRuntime(reachable=["127.0.0.0/8", "::1/128"])
    own, other = f"http://localhost:{site}/x", "http://169.254.169.254/latest/meta-data/"
    try:
        done = await run(
            runtime, script(FETCH, args=(own, other), network=(f"localhost:{site}",), limits=Limits(wall_sec=30))
        )
    finally:
        await runtime.close()

    first, second = done.out.splitlines()
    assert first == "GET /x HTTP/1.1"
    assert second.startswith("403 169.254.169.254:80 is not in the program's network list")
    assert done.ending.usage.received_bytes and done.ending.usage.sent_bytes


async def test_a_warm_program_has_the_same_way_out(site: int, folder: Path) -> None:
    (folder / "fetch.py").write_text(
        FETCH.replace("sys.argv[1:]", f"['http://localhost:{site}/warm', 'http://x.test/']")
    )
    runtime = BubblewrapRuntime(reachable=["127.0.0.0/8", "::1/128"])
    program = Program(
        (PYTHON, str(folder / "fetch.py")), readable=(*READABLE, str(folder)), network=(f"localhost:{site}",), warm="a",
        limits=Limits(wall_sec=60),
    )  # fmt: skip
    try:
        done = await run(runtime, program)
    finally:
        await runtime.close()

    assert done.out.splitlines()[0] == "GET /warm HTTP/1.1", done.err
    assert done.out.splitlines()[1].startswith("403 x.test:80")


async def test_without_a_list_there_is_no_way_out(l3: BubblewrapRuntime, site: int) -> None:
    done = await run(l3, script("import socket\nsocket.create_connection(('127.0.0.1', 3128))"))

    assert "PermissionError" in done.err
