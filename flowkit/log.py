"""The logger of a node that is a script of its own."""

from __future__ import annotations

import sys
import time
import traceback
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from flowkit.npu_control import NpuControl, channel

if TYPE_CHECKING:
    from flowkit.node import Node


class Logger:
    """Passes lines on, in order, before its methods return. By hand a line reads
    `[LEVEL][node][runner_id][YYYY-mm-dd HH:MM:SS] message`; inside FlowKit all but the message stands beside it."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self._npu = NpuControl(node)
        self._inside = channel() is not None

    async def info(self, message: object) -> None:
        await self._write("INFO", message)

    async def warning(self, message: object) -> None:
        await self._write("WARNING", message)

    async def debug(self, message: object) -> None:
        await self._write("DEBUG", message)

    async def error(self, message: object, include_traceback: bool = False) -> None:
        """`include_traceback` adds that of the exception that is being handled."""
        if include_traceback and sys.exc_info()[0] is not None:
            message = f"{message}\n{traceback.format_exc()}"
        await self._write("ERROR", message)

    async def log_with_context(self, level: str, message: object, context: Mapping[str, Any] | None = None) -> None:
        """The message with ` | Context: k=v, ...` after it."""
        if context:
            message = f"{message} | Context: {', '.join(f'{key}={value}' for key, value in context.items())}"
        await self._write(level.upper(), message)

    async def flush(self) -> None:
        """Nothing waits: lines are passed on as they come."""

    async def _write(self, level: str, message: object) -> None:
        if self._inside:
            await self._npu.log(str(message), level=level.lower())
            return
        now = time.strftime("%Y-%m-%d %H:%M:%S")
        await self._npu.log(f"[{level}][{self.node.node_name}][{self.node.runner_id}][{now}] {message}")
