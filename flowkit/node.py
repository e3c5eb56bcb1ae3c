"""The SDK of a node that is a script of its own: its inputs, its main function, its result.

The same script runs as the code of a node in a graph, and by hand, where it talks to the node processing unit at
`self_addr`: `python script.py input.json runner_id self_addr node_name`.
"""

from __future__ import annotations

import asyncio
import json
import sys
import traceback
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, cast
from uuid import UUID

from flowkit.npu_control import DONE, ERROR, NpuControl, channel

MainFunction = Callable[[], Awaitable[tuple[list[str], dict[str, Any], str]]]
USAGE = "python script.py input.json runner_id self_addr node_name"


class Node:
    """The node that this script is. `data` are its inputs, `function` its main function once that is registered.

    Raises `ValueError` where the arguments of the command line are not those of a node, or its inputs are no JSON
    object.
    """

    def __init__(self) -> None:
        self.function: MainFunction | None = None
        self._channel = channel()
        if self._channel is not None:
            job = self._channel.job
            self.input_file, self.self_addr = "", ""
            self.runner_id, self.node_name = UUID(job["runner_id"]), str(job["node"])
            self.data: dict[str, Any] = _object(self._channel.inputs)
            return
        if len(sys.argv) < 5:
            raise ValueError(f"a node's script has four arguments: {USAGE}")
        self.input_file, runner_id, self.self_addr, self.node_name = sys.argv[1:5]
        try:
            self.runner_id = UUID(runner_id)
        except ValueError:
            raise ValueError(f"runner_id must be a UUID, not {runner_id!r}: {USAGE}") from None
        try:
            self.data = _object(json.loads(Path(self.input_file).read_text(encoding="utf-8")))
        except OSError as error:
            raise ValueError(f"cannot read the inputs from {self.input_file!r}: {error}") from error

    def get_inputs(self) -> dict[str, Any]:
        return self.data

    def get_id(self) -> UUID:
        return self.runner_id

    def register_main(self, function: MainFunction) -> None:
        """Say which function is the node's. Raises `AssertionError` where it is not an async one."""
        code = getattr(function, "__code__", None)
        if code is None or not code.co_flags & 0x80:
            raise AssertionError(f"the main function must be async: async def main(): ..., not {function!r}")
        self.function = function

    def run(self) -> None:
        """Run the main function and give its result. Raises `ValueError` where none is registered."""
        asyncio.run(self.run_func())

    async def run_func(self) -> None:
        """`run`, in a loop that runs already."""
        if self.function is None:
            raise ValueError("a node needs its main function: node.register_main(main) before node.run()")
        async with NpuControl(self) as npu:
            try:
                nodes, outputs, message = _checked(await self.function())
                if self._channel is None:
                    json.dumps(outputs, allow_nan=False)
            except Exception as error:  # whatever the node's own function raises
                if self._channel is not None:
                    self._channel.failed(error)
                    return
                sys.stderr.write(traceback.format_exc())
                await npu.result([], {}, str(error), ERROR)
                return
            await npu.result(nodes, outputs, message, DONE)

    def progress(self, done: float | None = None, total: float | None = None, message: str = "") -> None:
        """Say how far it is; by hand nobody asks."""
        if self._channel is not None:
            self._channel.progress(done, total, message)

    def cancelled(self) -> bool:
        """Whether the node is to stop."""
        return self._channel is not None and self._channel.cancelled()


def _object(inputs: Any) -> dict[str, Any]:
    if inputs is None:
        return {}
    if not isinstance(inputs, dict):
        raise ValueError(f"a node's inputs are a JSON object, not {type(inputs).__name__}")
    return inputs


def _checked(result: Any) -> tuple[list[str], dict[str, Any], str]:
    if isinstance(result, tuple) and len(result) == 3:
        nodes, outputs, message = result
        named = isinstance(nodes, list | tuple) and all(isinstance(node, str) for node in nodes)
        if named and isinstance(outputs, dict) and isinstance(message, str):
            return list(cast("list[str]", nodes)), outputs, message
    raise ValueError(
        "main() must return three things, (next nodes: list of str, outputs: dict, message: str); "
        f"it returned {_shape(result)}"
    )


def _shape(result: Any) -> str:
    if isinstance(result, tuple):
        return f"({', '.join(type(part).__name__ for part in result)})"
    return type(result).__name__
