"""Workers of other processes ask the secret manager: over a loopback socket or TLS, bounded in all ways."""

from __future__ import annotations

import asyncio
import json
import socket
import stat
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deploy.local.certificates import Authority
from flowkit.errors import (
    ConfigError,
    Corrupt,
    FlowKitError,
    MasterKeyUnknown,
    SecretNotFound,
    SecretRefused,
    SecretsUnavailable,
    SecretTampered,
    StoreUnavailable,
    TicketRefused,
)
from flowkit.secrets import client as clients
from flowkit.secrets import frames
from flowkit.secrets import service as services
from flowkit.secrets.address import Address, client_tls, read_address, server_tls
from flowkit.secrets.client import SecretClient
from flowkit.secrets.service import SecretService
from tests.secrets.room import attempt, pretender
from tests.secrets.test_desk import Counter


@pytest.fixture
async def counter() -> Counter:
    counter = Counter()
    await counter.room.secrets.set("KEY", "some-value \u00fc\n\U0001f600")
    return counter


@pytest.fixture
async def service(counter: Counter) -> AsyncIterator[SecretService]:
    service = SecretService(counter.desk, "127.0.0.1:0")
    await service.start()
    yield service
    await service.stop()


async def test_a_worker_gets_its_values_and_the_use_is_recorded(counter: Counter, service: SecretService) -> None:
    client = SecretClient(service.address)
    for token in ("tok-1", "tok-2"):
        use = attempt(token=token)
        values = await client.values_for(use, counter.ticket("KEY", "KEY@1", use=use))
        assert values == {"KEY": "some-value \u00fc\n\U0001f600", "KEY@1": "some-value \u00fc\n\U0001f600"}
    assert await counter.outcomes() == ["ok"] * 4


async def test_a_worker_that_has_its_values_gets_them_no_more(counter: Counter, service: SecretService) -> None:
    client, ticket = SecretClient(service.address), counter.ticket("KEY")
    assert await client.values_for(attempt(), ticket)
    for _ in range(2):
        with pytest.raises(TicketRefused, match="the ticket was used"):
            await client.values_for(attempt(), ticket)
    assert await counter.outcomes() == ["ok", "E_TICKET", "E_TICKET"]


async def test_many_ask_at_once(counter: Counter, service: SecretService) -> None:
    client = SecretClient(service.address)
    uses = [attempt(token=f"tok-{n}") for n in range(100)]
    answers = await asyncio.gather(*(client.values_for(use, counter.ticket("KEY", use=use)) for use in uses))
    assert all(answers)


async def test_another_worker_with_a_copied_ticket_is_refused(counter: Counter, service: SecretService) -> None:
    ticket = counter.ticket("KEY")
    assert await SecretClient(service.address).values_for(attempt(), ticket)
    with pytest.raises(TicketRefused, match="shown by another before"):
        await SecretClient(service.address).values_for(attempt(), ticket)
    with pytest.raises(TicketRefused, match="another attempt: attempt differ"):
        await SecretClient(service.address).values_for(attempt(attempt=2), ticket)
    assert await counter.outcomes() == ["ok", "E_TICKET", "E_TICKET"]


@pytest.mark.parametrize(
    "error",
    [TicketRefused, SecretRefused, SecretNotFound, SecretTampered, MasterKeyUnknown, StoreUnavailable],
)
async def test_what_the_manager_raises_the_worker_raises(
    counter: Counter, service: SecretService, monkeypatch: pytest.MonkeyPatch, error: type[FlowKitError]
) -> None:
    async def fail(*args: object) -> None:
        raise error("why it was refused")

    monkeypatch.setattr(counter.desk, "values_for", fail)
    monkeypatch.setattr(clients, "PAUSE_SEC", 0.0)
    with pytest.raises(error, match="why it was refused"):
        await SecretClient(service.address).values_for(attempt(), counter.ticket("KEY"))


async def test_a_fault_of_the_service_is_not_told_outside_and_ends_nothing(
    counter: Counter, service: SecretService, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:

        async def fail(*args: object) -> None:
            raise RuntimeError("with a secret in it")

        patch.setattr(counter.desk, "values_for", fail)
        patch.setattr(clients, "PAUSE_SEC", 0.0)
        with pytest.raises(SecretsUnavailable, match=r"the secret manager failed; its log says how") as caught:
            await SecretClient(service.address).values_for(attempt(), counter.ticket("KEY"))
        assert "with a secret" not in str(caught.value)
    assert await SecretClient(service.address).values_for(attempt(), counter.ticket("KEY"))


class TestUnixSocket:
    async def test_it_is_for_its_owner_only_and_goes_with_the_service(self, counter: Counter, tmp_path: Path) -> None:
        path = tmp_path / "secrets.sock"
        service = SecretService(counter.desk, f"unix:{path}")
        await service.start()
        assert service.address == f"unix:{path}"
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert await SecretClient(service.address).values_for(attempt(), counter.ticket("KEY"))
        await service.stop()
        assert not path.exists()

    async def test_what_a_killed_service_left_is_taken_away_and_a_living_one_stays(
        self, counter: Counter, tmp_path: Path
    ) -> None:
        path = tmp_path / "secrets.sock"
        with socket.socket(socket.AF_UNIX) as dead:
            dead.bind(str(path))
        service = SecretService(counter.desk, f"unix:{path}")
        await service.start()
        with pytest.raises(ConfigError, match="another secret manager listens"):
            await SecretService(counter.desk, f"unix:{path}").start()
        assert await SecretClient(service.address).values_for(attempt(), counter.ticket("KEY"))
        await service.stop()

    async def test_another_file_is_not_taken_away(self, counter: Counter, tmp_path: Path) -> None:
        (path := tmp_path / "file").write_text("precious")
        with pytest.raises(ConfigError):
            await SecretService(counter.desk, f"unix:{path}").start()
        assert path.read_text() == "precious"


class TestTls:
    @pytest.fixture(autouse=True)
    def at_once(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(clients, "PAUSE_SEC", 0.0)

    async def test_values_travel_encrypted_to_whom_the_worker_trusts(self, counter: Counter, tmp_path: Path) -> None:
        ours, theirs = Authority(tmp_path / "ours"), Authority(tmp_path / "theirs")
        service = SecretService(
            counter.desk, "127.0.0.1:0", tls=server_tls((own := ours.issue("manager")).cert, own.key)
        )
        await service.start()
        try:
            good = SecretClient(service.address, tls=client_tls(ours.ca))
            assert await good.values_for(attempt(), counter.ticket("KEY"))
            with pytest.raises(SecretsUnavailable, match="no certificate that is trusted here"):
                await SecretClient(service.address, tls=client_tls(theirs.ca)).values_for(
                    attempt(), counter.ticket("KEY")
                )
            with pytest.raises(SecretsUnavailable, match=r"gave no answer|hung up"):
                await SecretClient(service.address).values_for(attempt(), counter.ticket("KEY"))
        finally:
            await service.stop()

    async def test_only_workers_with_a_certificate_are_heard_where_that_is_asked_for(
        self, counter: Counter, tmp_path: Path
    ) -> None:
        ours, theirs = Authority(tmp_path / "ours"), Authority(tmp_path / "theirs")
        manager = ours.issue("manager")
        tls = server_tls(manager.cert, manager.key, client_ca=ours.ca)
        service = SecretService(counter.desk, "127.0.0.1:0", tls=tls)
        await service.start()
        try:

            def client(authority: Authority | None) -> SecretClient:
                if authority is None:
                    return SecretClient(service.address, tls=client_tls(ours.ca))
                own = authority.issue("worker")
                return SecretClient(service.address, tls=client_tls(ours.ca, certificate=own.cert, key=own.key))

            assert await client(ours).values_for(attempt(), counter.ticket("KEY"))
            for stranger in (None, theirs):
                with pytest.raises(SecretsUnavailable):
                    await client(stranger).values_for(attempt(token="x"), counter.ticket("KEY", use=attempt(token="x")))
            assert await counter.outcomes() == ["ok"]
        finally:
            await service.stop()

    @pytest.mark.parametrize("wrong", [{"expired": True}, {"hosts": ("elsewhere",)}], ids=["expired", "another host's"])
    async def test_a_certificate_that_is_no_good_is_told(
        self, counter: Counter, tmp_path: Path, wrong: dict[str, Any]
    ) -> None:
        ours = Authority(tmp_path)
        own = ours.issue("manager", **wrong)
        service = SecretService(counter.desk, "127.0.0.1:0", tls=server_tls(own.cert, own.key))
        await service.start()
        try:
            with pytest.raises(SecretsUnavailable, match=r"no certificate that is trusted here: .*(expired|mismatch)"):
                await SecretClient(service.address, tls=client_tls(ours.ca)).values_for(
                    attempt(), counter.ticket("KEY")
                )
        finally:
            await service.stop()
        assert await counter.outcomes() == []

    def test_nothing_travels_in_the_clear_to_other_machines(self, counter: Counter, tmp_path: Path) -> None:
        for make in (lambda: SecretService(counter.desk, "0.0.0.0:8000"), lambda: SecretClient("10.0.0.1:8000")):
            with pytest.raises(ConfigError, match="without TLS secrets would travel in the clear"):
                make()
        SecretClient("10.0.0.1:8000", tls=client_tls())
        for make in (lambda: server_tls(tmp_path / "none", tmp_path / "none"), lambda: client_tls(tmp_path / "none")):
            with pytest.raises(ConfigError, match="cannot be read"):
                make()


class TestBounds:
    async def talk(self, service: SecretService, *parts: bytes, pause: float = 0.0) -> bytes:
        """What comes back until the service hangs up."""
        host, _, port = service.address.rpartition(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        try:
            for part in parts:
                writer.write(part)
                await writer.drain()
                await asyncio.sleep(pause)
            async with asyncio.timeout(60):
                return await reader.read()
        except ConnectionError:
            return b""
        finally:
            await frames.hang_up(writer)

    @pytest.mark.parametrize(
        "data",
        [
            b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
            (100_000).to_bytes(4, "big"),
            b"\xff\xff\xff\xff",
            frames.frame([1, 2]),
            frames.frame({"v": 2}),
            frames.frame({"v": 1, "use": {}, "ticket": "", "holder": ""}),
            (60_000).to_bytes(4, "big") + b"[" * 60_000,
            frames.question(attempt(node="n" * 2000), "t", "h"),
            frames.question(attempt(), "t" * 40_000, "h"),
            frames.question(attempt(), "t", "h" * 200),
        ],
    )
    async def test_what_is_no_question_ends_the_connection_and_nothing_else(
        self, counter: Counter, service: SecretService, data: bytes
    ) -> None:
        assert await self.talk(service, data) == b""
        assert await SecretClient(service.address).values_for(attempt(), counter.ticket("KEY"))

    async def test_nobody_is_waited_for_for_ever(self, service: SecretService, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(services, "IDLE_SEC", 0.1)
        monkeypatch.setattr(services, "QUESTION_SEC", 0.1)
        assert await self.talk(service) == b""
        assert await self.talk(service, b"\x00") == b""
        assert await self.talk(service, (100).to_bytes(4, "big"), b"abc") == b""

    async def test_of_too_many_connections_the_new_ones_are_closed(
        self, counter: Counter, service: SecretService, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(services, "MOST_CONNECTIONS", 3)
        monkeypatch.setattr(clients, "PAUSE_SEC", 0.02)
        host, _, port = service.address.rpartition(":")
        held = [await asyncio.open_connection(host, int(port)) for _ in range(3)]
        for _ in range(3):
            assert await self.talk(service) == b""
        held[0][1].close()
        assert await SecretClient(service.address).values_for(attempt(), counter.ticket("KEY"))
        for _, writer in held:
            await frames.hang_up(writer)

    async def test_stopping_ends_the_connections_there_are(self, counter: Counter) -> None:
        service = SecretService(counter.desk, "127.0.0.1:0")
        await service.start()
        host, _, port = service.address.rpartition(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(b"\x00")
        await asyncio.sleep(0)
        async with asyncio.timeout(60):
            await service.stop()
            await service.stop()
            assert await reader.read() == b""
        await frames.hang_up(writer)
        with pytest.raises(SecretsUnavailable, match="cannot be reached"):
            await SecretClient(f"{host}:{port}").values_for(attempt(), counter.ticket("KEY"))

    async def test_a_manager_that_does_not_answer_is_not_waited_for_for_ever(self) -> None:
        async def mute(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.read()
            await frames.hang_up(writer)

        async with pretender(mute) as address:
            with pytest.raises(SecretsUnavailable, match=r"did not answer within 0.2 s"):
                await SecretClient(address, timeout=0.2).values_for(attempt(), "ticket")

    @pytest.mark.parametrize(
        "said",
        [
            b"\xff\xff\xff\xff",
            frames.frame([]),
            frames.frame({"ok": True}),
            frames.frame({"ok": True, "values": {"K": 1}}),
        ],
    )
    async def test_an_answer_that_is_none_is_told(self, said: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(clients, "PAUSE_SEC", 0.0)

        async def babble(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.read(10)
            writer.write(said)
            await writer.drain()
            await reader.read()
            await frames.hang_up(writer)

        async with pretender(babble) as address:
            with pytest.raises(SecretsUnavailable, match="gave no answer"):
                await SecretClient(address).values_for(attempt(), "ticket")

    async def test_a_hiccup_is_tried_again(
        self, counter: Counter, service: SecretService, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(clients, "PAUSE_SEC", 0.0)
        real, failures = counter.desk.values_for, [1, 2, 3]

        async def sometimes(*args: Any) -> Any:
            if failures:
                failures.pop()
                raise StoreUnavailable("an election")
            return await real(*args)

        monkeypatch.setattr(counter.desk, "values_for", sometimes)
        assert await SecretClient(service.address).values_for(attempt(), counter.ticket("KEY"))


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(["v", "use", "ticket", "holder", "ok", "values", "code"]), inner, max_size=4
            )
        ),
    )
)
def test_whatever_is_said_is_a_question_or_corrupt(said: Any) -> None:
    for read in (frames.read_question, lambda data: frames.read_answer(data, "there")):
        with suppress(Corrupt, FlowKitError):
            read(json.dumps(said).encode())


class TestAddress:
    @pytest.mark.parametrize(
        ("text", "address", "local"),
        [
            ("127.0.0.1:8000", Address("127.0.0.1", 8000), True),
            ("localhost:0", Address("localhost", 0), True),
            ("[::1]:8000", Address("::1", 8000), True),
            ("secrets.example.org:8000", Address("secrets.example.org", 8000), False),
            ("0.0.0.0:8000", Address("0.0.0.0", 8000), False),
            ("unix:/run/s.sock", Address(path="/run/s.sock"), True),
        ],
    )
    def test_an_address_is_read_and_written_again(self, text: str, address: Address, local: bool) -> None:
        assert read_address(text) == address
        assert str(address) == text
        assert address.local is local

    @pytest.mark.parametrize("text", ["", "8000", ":8000", "host:", "host:x", "host:99999", "unix:"])
    def test_anything_else_is_told(self, text: str) -> None:
        with pytest.raises(ConfigError, match=r"write host:port|write unix:"):
            read_address(text)

    async def test_an_address_that_is_taken_is_told(self, counter: Counter, service: SecretService) -> None:
        with pytest.raises(ConfigError, match=r"cannot listen on 127.0.0.1"):
            await SecretService(counter.desk, service.address).start()
