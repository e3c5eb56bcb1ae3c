"""The input adapters of a worker, by name: those that every worker has, and its own."""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from flowkit.core.stream import named_nodes
from flowkit.errors import ConfigError, InputError, did_you_mean
from flowkit.worker import stream_adapters
from flowkit.worker.binding import Binding, binding_of
from flowkit.worker.handlers.base import Batch
from flowkit.worker.outcome import AttemptFailure
from flowkit.worker.stream import Fetch, Stream
from flowkit.worker.stream_adapters import BUILT_IN, COMMON, bad_args

if TYPE_CHECKING:
    from flowkit.worker.context import Context
    from flowkit.worker.stream_flow import StreamFlow

ROWS = "rows"
"""The parameter of an adapter that gets the stream which it reads."""

OwnAdapter = Callable[..., AsyncIterator[Batch]]


@dataclass(frozen=True, slots=True)
class Own:
    """An adapter of the worker's own."""

    call: OwnAdapter
    binding: Binding

    @property
    def takes(self) -> set[str]:
        return {parameter.name for parameter in self.binding.parameters}


class InputAdapters:
    """Raises `ConfigError` for an adapter that could never be called, or whose name is taken."""

    def __init__(self, own: Mapping[str, OwnAdapter] | None = None) -> None:
        self._own = {name: _own(name, call) for name, call in (own or {}).items()}

    @property
    def by_name(self) -> Mapping[str, Callable[..., AsyncIterator[Batch]]]:
        """All of them."""
        return MappingProxyType({**BUILT_IN, **{name: own.call for name, own in self._own.items()}})

    def __contains__(self, name: object) -> bool:
        return name in self._own or name in BUILT_IN

    def adapt(self, name: str, args: Mapping[str, Any], *, flow: StreamFlow | None, fetch: Fetch | None,
              ctx: Context) -> tuple[AsyncIterator[Batch], bool]:  # fmt: skip
        """The batches that an adapter makes, and whether their ids tell them apart: where it reads a stream, their
        places in it do. Raises `AttemptFailure` for a name that nobody knows, and for arguments that cannot be
        right."""
        if name in BUILT_IN:
            stream_adapters.check(name, args)
            return BUILT_IN[name](_rows(name, args, flow, fetch), args, ctx.task_id), False
        own = self._own.get(name)
        if own is None:
            known = self.by_name
            message = f"there is no input adapter {name!r}{did_you_mean(name, known)}; known are {', '.join(known)}"
            raise AttemptFailure("bad_input_adapter", message[:1000], permanent=True)
        given = {key: value for key, value in args.items() if key in own.takes or key not in COMMON}
        if ROWS in given:
            raise bad_args(name, f"{ROWS!r} is the stream itself, and no argument")
        reads = ROWS in own.takes
        if reads:
            given[ROWS] = _rows(name, args, flow, fetch)
        try:
            positional, named = own.binding.bind(given, lambda: ctx)
        except InputError as error:
            raise bad_args(name, str(error)) from error
        return _checked(name, own.call(*positional, **named)), not reads


def _own(name: Any, call: Any) -> Own:
    if not isinstance(name, str) or not name:
        raise ConfigError(f"an input adapter has a name, not {name!r}")
    if name in BUILT_IN:
        raise ConfigError(f"the input adapter {name!r} is built in: choose another name")
    if not callable(call) or isinstance(call, type):
        raise ConfigError(f"the input adapter {name!r} is an async generator function, not {call!r}")
    return Own(call, binding_of(call, name))


def _rows(name: str, args: Mapping[str, Any], flow: StreamFlow | None, fetch: Fetch | None) -> Stream:
    """The stream of the nodes that the arguments name, or else of all that the graph says."""
    stream_adapters.check_nodes(name, args)
    sources = [] if flow is None else [source for source, _, _ in flow.plan.sources]
    wanted = named_nodes(args) or sources
    strange = [node for node in wanted if node not in sources]
    if strange or not wanted:
        said = f"the graph does not say that this node reads {strange[0]!r}" if strange else "it names no node to read"
        raise bad_args(name, f"{said}: name the nodes in io.input_args.from_nodes")
    assert flow is not None
    assert fetch is not None
    return Stream(flow, wanted, fetch)


async def _checked(name: str, made: Any) -> AsyncIterator[Batch]:
    """What an adapter yields, as far as it is batches."""
    made = await made if inspect.isawaitable(made) else made
    if not hasattr(made, "__aiter__"):
        what = f"it gave {type(made).__name__}, not an async iterator: write it as an async generator"
        raise AttemptFailure("bad_input_adapter", f"input adapter {name!r}: {what}", permanent=True)
    try:
        async for batch in made:
            if not isinstance(batch, Batch):
                what = f"it made {type(batch).__name__}, not a Batch (of flowkit.worker)"
                raise AttemptFailure("bad_input_adapter", f"input adapter {name!r}: {what}", permanent=True)
            yield batch
    finally:
        if (close := getattr(made, "aclose", None)) is not None:
            await close()
