"""Finds out why no broker takes us, for aiokafka keeps that to its log: one connection each, step by step."""

from __future__ import annotations

import asyncio
import ssl
import struct
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from aiokafka.conn import collect_hosts, create_conn
from aiokafka.errors import (
    AuthenticationFailedError,
    IllegalSaslStateError,
    KafkaError,
    SaslAuthenticationFailed,
    UnsupportedSaslMechanismError,
)
from aiokafka.protocol.metadata import MetadataRequest

API_VERSIONS = struct.pack(">ihhih", 10, 18, 0, 1, -1)
STEP_SEC = 2.0
TLS_ALERT = 0x15
REFUSED = (AuthenticationFailedError, IllegalSaslStateError, SaslAuthenticationFailed, UnsupportedSaslMechanismError)
LOST = (OSError, EOFError, TimeoutError)
SETTING = "kafka_security_protocol"


@dataclass(frozen=True, slots=True)
class Refusal:
    """`why`; `hinted`: it says what to do; `final`: that it does, and that waiting mends nothing."""

    why: str
    final: bool = False
    hinted: bool = False


async def refusal(address: str, client_id: str, security: Mapping[str, Any]) -> Refusal | None:
    """Why none of the brokers of `address` takes a client with these options; None if one does."""
    found: list[Refusal] = []
    for host, port, _ in collect_hosts(address, randomize=False):
        new = await _of_one(host, port, client_id, security)
        if new is None:
            return None
        found.append(new)
    return next((one for one in found if one.final), found[0])


async def _of_one(host: str, port: int, client_id: str, security: Mapping[str, Any]) -> Refusal | None:
    context = security.get("ssl_context")
    try:
        await _greet(host, port, context)
    except ssl.SSLCertVerificationError as error:
        return Refusal(f"its certificate is not to be trusted: {_of_certificate(error)}", final=True)
    except ssl.SSLError as error:
        return await _of_handshake(host, port, error)
    except (ConnectionRefusedError, TimeoutError) as error:
        return Refusal(error.strerror or "no answer")
    except LOST as error:
        return await _of_silence(host, port, context, error)
    return await _of_login(host, port, client_id, security)


async def _greet(host: str, port: int, context: ssl.SSLContext | None) -> None:
    """Connect, and ask something that needs no login. An alert about our own certificate comes with the answer."""
    async with asyncio.timeout(STEP_SEC):
        reader, writer = await asyncio.open_connection(host, port, ssl=context)
        try:
            writer.write(API_VERSIONS)
            await writer.drain()
            if (await reader.readexactly(4))[0] == TLS_ALERT:
                raise EOFError("an alert of TLS")
        finally:
            writer.transport.abort()


async def _of_handshake(host: str, port: int, error: ssl.SSLError) -> Refusal:
    said = error.reason or str(error)
    if "ALERT" in said:
        return Refusal(
            f"it asks for a client's certificate that it can trust ({said}): set kafka_cert_file and kafka_key_file to "
            "one that its CA signed",
            final=True,
        )
    if await _answers(host, port, None):
        return Refusal(f"the listener speaks no TLS: set {SETTING} to what it speaks, or use another port", final=True)
    return Refusal(f"no TLS with it: {said}")


async def _of_silence(host: str, port: int, context: ssl.SSLContext | None, error: BaseException) -> Refusal:
    if isinstance(error, OSError) and not isinstance(error, ConnectionError):
        return Refusal(error.strerror or str(error))
    other = None if context is not None else _trusting()
    if await _answers(host, port, other):
        what = "speaks TLS, and we do not" if other is not None else "speaks no TLS"
        hint = f"set {SETTING} to SSL or SASL_SSL" if other is not None else f"set {SETTING} to what it speaks"
        return Refusal(f"the listener {what}: {hint}, or use another port", final=True)
    if context is not None:
        return Refusal(
            "it closes the connection after the handshake: does it ask for a client's certificate?", hinted=True
        )
    return Refusal("it closes the connection")


async def _answers(host: str, port: int, context: ssl.SSLContext | None) -> bool:
    """Whether the listener speaks TLS, where a context is given, or plain Kafka."""
    try:
        async with asyncio.timeout(STEP_SEC):
            if context is None:
                await _greet(host, port, None)
            else:
                _, writer = await asyncio.open_connection(host, port, ssl=context)
                writer.transport.abort()
    except LOST:
        return False
    return True


async def _of_login(host: str, port: int, client_id: str, security: Mapping[str, Any]) -> Refusal | None:
    connection = None
    user, mechanism = security.get("sasl_plain_username"), security.get("sasl_mechanism")
    try:
        async with asyncio.timeout(STEP_SEC):
            connection = await create_conn(host, port, client_id=client_id, **security)
            await connection.send(MetadataRequest([]))
    except UnsupportedSaslMechanismError as error:
        return Refusal(f"{error}: set kafka_sasl_mechanism", final=True)
    except REFUSED as error:
        hint = "are kafka_user and the password right, and was the user made for this mechanism?"
        return Refusal(f"it refuses the user {user!r} by {mechanism} ({type(error).__name__}): {hint}", final=True)
    except ValueError as error:  # SCRAM proves the password both ways
        return Refusal(f"who answers does not prove to know the password of {user!r}: {error}", final=True)
    except (KafkaError, *LOST) as error:
        if user is None:
            return Refusal(
                f"it closes the connection before any request: does it ask for a login ({SETTING} SASL_SSL)?",
                hinted=True,
            )
        return Refusal(str(error) or type(error).__name__)
    finally:
        if connection is not None:
            with suppress(*LOST):
                connection.close()
    return None


def _of_certificate(error: ssl.SSLCertVerificationError) -> str:
    said = error.verify_message or str(error)
    if "expired" in said or "not yet valid" in said:
        return f"{said}; renew it, or mend this machine's clock"
    if "mismatch" in said or "not valid for" in said:
        return f"{said}; use a name that the certificate has, or make one with this name"
    return f"{said}; does kafka_ca_file hold the CA that signed it?"


def _trusting() -> ssl.SSLContext:
    # Only to see whether TLS is spoken: nothing is sent over it.
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context
