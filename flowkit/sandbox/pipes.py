"""Reads what a program prints into a stream that somebody reads: at once, without the layers of a transport."""

from __future__ import annotations

import asyncio
import os
from typing import Final

READ_BYTES: Final = 256 * 1024


class Pipe(asyncio.ReadTransport):
    """The reading end of a pipe, which is this one's from now on, and `stream`, which it fills until the pipe ends."""

    def __init__(self, descriptor: int, stream: asyncio.StreamReader) -> None:
        super().__init__()
        self._descriptor = descriptor
        self._stream = stream
        self._loop = asyncio.get_running_loop()
        os.set_blocking(descriptor, False)
        stream.set_transport(self)
        self.resume_reading()

    def pause_reading(self) -> None:
        """Called by the stream when it is full enough."""
        self._loop.remove_reader(self._descriptor)

    def resume_reading(self) -> None:
        if self._descriptor >= 0:
            self._loop.add_reader(self._descriptor, self._read)

    def _read(self) -> None:
        try:
            data = os.read(self._descriptor, READ_BYTES)
        except BlockingIOError:
            return
        if data:
            self._stream.feed_data(data)
            return
        self._loop.remove_reader(self._descriptor)
        self._close()
        self._stream.feed_eof()

    def _close(self) -> None:
        descriptor, self._descriptor = self._descriptor, -1
        os.close(descriptor)

    def __del__(self) -> None:
        if self._descriptor >= 0:  # nobody reads on: it was full, and its stream was dropped
            self._close()
