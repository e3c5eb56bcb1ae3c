"""Carries what a node says to whoever runs it: over the channel inside FlowKit, over HTTP where a script runs by hand.

Loads nothing but the standard library, and of that only what the road at hand needs.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol

if TYPE_CHECKING:
    from flowkit.node import Node

DONE: Final = "DONE"
ERROR: Final = "ERROR"
TOKEN_VARIABLE: Final = "FLOWKIT_NODE_TOKEN"  # noqa: S105 - a variable's name
BRIDGE: Final = "flowkit_channel"
RETRY_SEC: Final = 0.5
LARGEST_ANSWER: Final = 1024 * 1024


class Channel(Protocol):
    """What FlowKit puts among `sys.modules` where it runs a node's code itself."""

    job: dict[str, Any]
    inputs: Any
    done: bool

    def log(self, level: str, message: str) -> None: ...
    def progress(self, done: float | None, total: float | None, message: str) -> None: ...
    def cancelled(self) -> bool: ...
    def secret(self, name: str) -> str: ...
    def result(self, output: Any, next_nodes: list[str] | None, message: str) -> None: ...
    def failed(self, error: BaseException) -> None: ...


def channel() -> Channel | None:
    """The channel to FlowKit, or None where the script runs by hand."""
    modules: dict[str, Any] = sys.modules
    found: Channel | None = modules.get(BRIDGE)
    return found


class NodeResult(NamedTuple):
    """What a node gave back: the successors that it chose, its outputs, a message, and `DONE` or `ERROR`."""

    nodes: list[str]
    outputs: dict[str, Any]
    message: str
    status: str


class NpuControl:
    """The node processing unit as a node sees it. `timeout` (seconds) bounds one request; `max_retries` is how often
    one that failed is sent again. The methods answer whether it got through."""

    DONE = DONE
    ERROR = ERROR

    def __init__(self, node: Node, timeout: float = 10, max_retries: int = 1) -> None:
        self.node = node
        self.timeout = timeout
        self.max_retries = max_retries
        self._channel = channel()

    async def log(self, message: str, retry: bool = True, *, level: str = "info") -> bool:
        """Pass a line on."""
        if self._channel is not None:
            self._channel.log(level, message)
            return True
        from urllib.parse import quote

        return await self._ask("POST", f"/log/{self.node.runner_id}?message={quote(message, safe='')}", None, retry)

    async def result(self, nodes: list[str], outputs: dict[str, Any], message: str, status: str = DONE,
                     retry: bool = True) -> bool:  # fmt: skip
        """Give the node's result, once. Raises `ValueError` for outputs that JSON cannot say."""
        if self._channel is not None:
            if status == DONE:
                self._channel.result(outputs, nodes, message)
            else:
                self._channel.failed(RuntimeError(message))
            return True
        said = NodeResult(nodes, outputs, message, status)._asdict()
        return await self._ask("POST", f"/result/{self.node.runner_id}", json.dumps(said, allow_nan=False), retry)

    async def health_check(self) -> bool:
        """Whether the node processing unit answers."""
        return self._channel is not None or await self._ask("GET", "/health", None, False)

    def secret(self, name: str) -> str:
        """The value of a secret, looked up now. By hand the unit gives it, where the pass of the attempt is for it.
        Raises `RuntimeError`, which says why it cannot be had."""
        if self._channel is not None:
            return self._channel.secret(name)
        try:
            status, text = self._exchange("POST", f"/secret/{self.node.runner_id}", json.dumps({"name": name}))
            said = json.loads(text)
        except (OSError, ValueError) as error:
            raise RuntimeError(f"secret {name!r}: {self.node.self_addr} does not answer: {error}") from None
        if status != 200 or not isinstance(said, dict) or not isinstance(said.get("value"), str):
            why = said.get("detail", "no value") if isinstance(said, dict) else "no value"
            raise RuntimeError(f"secret {name!r}: {self.node.self_addr} refused it ({status}): {why}")
        return str(said["value"])

    async def close(self) -> None:
        """Nothing is held between two requests."""

    async def __aenter__(self) -> NpuControl:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None,
                        trace: TracebackType | None) -> None:  # fmt: skip
        await self.close()

    async def _ask(self, method: str, path: str, body: str | None, retry: bool) -> bool:
        for left in range(self.max_retries if retry else 0, -1, -1):
            try:
                return await asyncio.to_thread(self._request, method, path, body)
            except OSError as error:
                if not left:
                    sys.stderr.write(f"flowkit: {self.node.self_addr} does not answer: {error}\n")
            if left:
                await asyncio.sleep(RETRY_SEC)
        return False

    def _request(self, method: str, path: str, body: str | None) -> bool:
        status, text = self._exchange(method, path, body)
        if status >= 500:
            raise OSError(f"it answered {status}")
        if status >= 400:
            why = text[:500].decode(errors="replace")
            at = path.partition("?")[0]
            sys.stderr.write(f"flowkit: {self.node.self_addr} refused {method} {at}: {status} {why}\n")
        return status < 400

    def _exchange(self, method: str, path: str, body: str | None) -> tuple[int, bytes]:
        import http.client
        from urllib.parse import urlsplit

        address = self.node.self_addr
        parts = urlsplit(address if "://" in address else f"http://{address}")
        try:
            host, port = parts.hostname or "", parts.port
        except ValueError as error:
            raise OSError(f"it is no address of a node processing unit: {error}") from error
        kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        connection = kind(host, port, timeout=self.timeout)
        headers = {"Content-Type": "application/json"}
        if token := os.environ.get(TOKEN_VARIABLE):
            headers["Authorization"] = f"Bearer {token}"
        try:
            connection.request(method, parts.path.rstrip("/") + path, None if body is None else body.encode(), headers)
            answer = connection.getresponse()
            return answer.status, answer.read(LARGEST_ANSWER)
        except http.client.HTTPException as error:
            raise OSError(f"{type(error).__name__}: {error}") from error
        finally:
            connection.close()
