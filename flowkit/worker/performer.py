"""Performs one attempt: its inputs in, its handler run, its output out; the answer is the report."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Generator
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from flowkit.core.reports import AttemptReport, Succeeded
from flowkit.errors import Corrupt
from flowkit.wire.facts import read_artifact
from flowkit.wire.messages import Flowing
from flowkit.wire.stream import Plan, read_plan
from flowkit.worker import generators, outputs
from flowkit.worker.attempt import Attempt
from flowkit.worker.attempt_secrets import HandlerSecrets
from flowkit.worker.context import LONGEST_PROGRESS, Context, Kit
from flowkit.worker.covering import covering
from flowkit.worker.inputs import Inputs, patiently
from flowkit.worker.logger import speaker
from flowkit.worker.outcome import AttemptFailure, Hide, as_it_is, clean, failed
from flowkit.worker.outputs import Output, TooMuch
from flowkit.worker.registry import Kind
from flowkit.worker.results import Next
from flowkit.worker.stream import Stream
from flowkit.worker.stream_flow import Ended, StreamFlow

if TYPE_CHECKING:
    from flowkit.worker.input_adapters import InputAdapters
    from flowkit.worker.programs import Programs

NOT_BEGUN = object()
NO_CLASS = (
    "input adapter {!r} makes batches for a class, and the handler of {!r} is a function: give a RoleHandler, or let "
    'the function read the stream ("inputs": {{"rows": {{"$stream": "node"}}}})'
)


class Performer:
    """`listens`: what libraries log while an attempt runs is its own. `secrets` None: handlers get none here."""

    def __init__(self, kit: Kit, *, max_output_bytes: int, adapters: InputAdapters | None = None,
                 programs: Programs | None = None, secrets: HandlerSecrets | None = None,
                 listens: bool = False) -> None:  # fmt: skip
        self._kit = kit
        self._adapters = adapters
        self._programs = programs
        self._secrets = secrets
        self._listens = listens
        self._max_output_bytes = max_output_bytes
        self._inputs = Inputs(kit.store, kit.run_sync)
        self.on_parked: Callable[[Attempt, bool], None] = lambda attempt, parked: None
        self.on_lost: Callable[[Attempt], None] = lambda attempt: None

    async def perform(self, attempt: Attempt, arm: Callable[[Attempt], None]) -> tuple[AttemptReport, int]:
        """The report, and how many bytes its output takes up in a message. `arm` is called when the handler begins:
        from then on its time runs. Raises `CancelledError` where the attempt was told to end."""
        job = attempt.job
        try:
            try:
                value = await self._run(attempt, arm)
                if isinstance(value, Ended):
                    return Succeeded(job.node, job.attempt, job.token, value.payload, value.chosen), value.size
                value, chosen = outputs.split(value)
                if (covered := covering(attempt, self._kit.run_sync)) is not None:
                    value, chosen = await covered(value), await covered(chosen)
                output = self._encode_now(value)
                if output is None or output.blob is not None:
                    output = await self._keep(output, value, attempt.job.task_id)
                if attempt.flow is not None:
                    await attempt.flow.end(output.payload, chosen)
            except (Exception, SystemExit):
                if attempt.flow is not None:
                    await attempt.flow.keep()
                raise
            finally:
                if attempt.context is not None or attempt.flow is not None:
                    await self._clean_up(attempt)
            report = Succeeded(job.node, job.attempt, job.token, output.payload, chosen, attempt.run_sec,
                               attempt.usage)  # fmt: skip
            return report, output.size
        except asyncio.CancelledError as error:
            if attempt.order is not None or _is_being_cancelled():
                raise
            # Nobody told it to end: the handler raised this by itself.
            failure: BaseException = error
        except (Exception, SystemExit) as error:  # whatever a handler raises: the attempt's report says it
            failure = error
        classify = getattr(attempt.handler, "classify_error", None)
        run_sec = attempt.run_sec
        hide = _hide_of(attempt)
        ended = failed(job.node, job.attempt, job.token, failure, run_sec=run_sec, classify=classify, hide=hide)
        if attempt.cover is not None:
            ended = attempt.cover.report(ended)
        return (ended if attempt.usage is None else replace(ended, usage=attempt.usage)), 0

    async def _clean_up(self, attempt: Attempt) -> None:
        try:
            if attempt.context is not None:
                await attempt.context.close()
        finally:
            if attempt.flow is not None:
                await attempt.flow.close()

    async def _run(self, attempt: Attempt, arm: Callable[[Attempt], None]) -> Any:
        """What the handler returns; `Ended` where an earlier attempt has said that already."""
        job, clock = attempt.job, self._kit.clock
        if job.artifacts or job.body_ref or job.params_in_head:
            inputs, params, io, code = await self._inputs.gather(job)
        else:
            inputs, params, io, code = job.inputs, job.params, job.io, job.code
        self._last_look(attempt)
        begun = clock.mono()
        arm(attempt)
        if self._listens:
            speaker.set((self._kit.logs, attempt.log_of(self._kit.logs)))
        try:
            if code is not None and attempt.role.kind is not Kind.CODE:
                inputs = await self._fill_in_secrets(attempt, inputs, code)
            if job.stream is not None:
                attempt.flow = self._flow(attempt, read_plan(job.stream))
                ended = await attempt.flow.open(replay=_replays(attempt), afresh=attempt.role.kind is Kind.CLASS)
                if ended is not None:
                    return ended
                inputs = self._with_streams(attempt.flow, inputs)
            if attempt.role.kind is Kind.CODE:
                return await self._run_code(attempt, inputs, params, code)
            if attempt.role.kind is Kind.CLASS:
                return await self._run_class(attempt, inputs, params, io or {})
            return await self._run_function(attempt, inputs, params)
        finally:
            attempt.run_sec = clock.mono() - begun
            attempt.clear_limits()

    async def _fill_in_secrets(self, attempt: Attempt, inputs: Any, said: Any) -> Any:
        """The inputs of a handler, with its secrets; from here on what it says is covered."""
        if not isinstance(said, dict) or "secrets" not in said:
            raise Corrupt(f"node {attempt.job.node!r} came with what a handler has no use for")
        if self._secrets is None:
            say = "the node's inputs have secrets, and this worker does not know where they come from: "
            raise AttemptFailure("no_secret_manager", say + "set secrets_address", permanent=False)
        inputs, cover = await self._secrets.fill(attempt.job, inputs, said, self._kit.run_sync)
        attempt.hide(cover)
        return inputs

    def _last_look(self, attempt: Attempt) -> None:
        """Right before user code begins: the process may have stood still since the lease was last looked at, and by
        now it may be another's. Raises `CancelledError` then."""
        if not attempt.surely_ours(self._kit.clock.mono()):
            attempt.lost = True
            self.on_lost(attempt)
            raise asyncio.CancelledError

    async def _call_in_thread(self, attempt: Attempt, call: Callable[[], Any]) -> Any:
        """What a plain function returns. A thread takes a while to begin, and looks once more itself."""

        def begin() -> Any:
            return call() if attempt.surely_ours(self._kit.clock.mono()) else NOT_BEGUN

        value = await self._kit.run_sync(begin)
        if value is NOT_BEGUN:
            attempt.lost = True
            self._last_look(attempt)
        return value

    async def _run_function(self, attempt: Attempt, inputs: Any, params: Any) -> Any:
        role = attempt.role
        assert role.binding is not None
        if attempt.flow is not None and attempt.flow.plan.adapter:
            raise AttemptFailure(
                "bad_input_adapter", NO_CLASS.format(attempt.flow.plan.adapter, role.name), permanent=True
            )
        if not attempt.job.given and role.binding.takes_nothing:
            inputs = {}  # the node was given what came before it; a handler that asks for nothing may leave it there
        args, kwargs = role.binding.bind(inputs, lambda: self._context(attempt, params))
        self._last_look(attempt)
        if role.yields:
            batches = role.call(*args, **kwargs)
            if isinstance(batches, Generator):
                return await generators.run_plain(batches, attempt.flow, self._kit.run_sync)
            return await generators.run_async(batches, attempt.flow)
        if role.kind is Kind.ASYNC:
            value = await role.call(*args, **kwargs)
        else:
            value = await self._call_in_thread(attempt, lambda: role.call(*args, **kwargs))
            value = await value if inspect.isawaitable(value) else value
        if attempt.flow is not None:
            await self._emit(attempt, value)
        return value

    async def _emit(self, attempt: Attempt, value: Any) -> None:
        """To those that read it as a stream, what it returned is the only batch."""
        if attempt.flow is not None and attempt.flow.plan.readers:
            await generators.emit(value.output if isinstance(value, Next) else value, attempt.flow)

    async def _run_code(self, attempt: Attempt, inputs: Any, params: Any, code: Any) -> Any:
        if self._programs is None or not isinstance(code, dict):
            raise Corrupt(f"node {attempt.job.node!r} came without its code, or to a worker that runs none")
        context = self._context(attempt, params)

        async def emit(batch: Any) -> None:
            if attempt.flow is not None and attempt.flow.plan.readers:
                await generators.emit(batch, attempt.flow)

        begin = partial(self._last_look, attempt)
        return await self._programs.run(attempt, inputs, code, context, self._kit.undertaker, emit, begin)

    async def _run_class(self, attempt: Attempt, inputs: Any, params: Any, io: dict[str, Any]) -> Any:
        from flowkit.worker import batches

        self._last_look(attempt)
        attempt.handler = handler = attempt.role.call()
        context = self._context(attempt, params)
        return await batches.run(handler, inputs, context, io, flow=attempt.flow, fetch=self._fetch,
                                 adapters=self._adapters)  # fmt: skip

    def _flow(self, attempt: Attempt, plan: Plan) -> StreamFlow:
        kit = self._kit
        return StreamFlow(plan=plan, job=attempt.job, store=kit.store, hub=kit.hub,
                          encode=lambda value: self._encode(value, attempt.job.task_id),
                          covered=covering(attempt, kit.run_sync),
                          hide=_hide_of(attempt),
                          parked=partial(self.on_parked, attempt), said=partial(self._said, attempt))  # fmt: skip

    def _said(self, attempt: Attempt, done: int, message: str, flowing: Flowing) -> None:
        """How far its streams are: what the next heartbeat tells, unless the handler tells something itself."""
        attempt.progress_at = self._kit.clock.mono()
        attempt.streams = flowing
        if attempt.context is None or attempt.context.last_progress is None:
            attempt.progress = (done, None, clean(message, LONGEST_PROGRESS))

    def _with_streams(self, flow: StreamFlow, inputs: Any) -> Any:
        """The inputs, with streams where the node says that there are some."""
        for name, sources in flow.plan.reads:
            stream = Stream(flow, sources, self._fetch)
            if not name:
                return stream
            inputs = {**inputs, name: stream}
        return inputs

    async def _fetch(self, row: list[Any]) -> Any:
        return await self._inputs.value_of(read_artifact(row))

    def _context(self, attempt: Attempt, params: Any) -> Context:
        attempt.context = Context(attempt, self._kit, params)
        return attempt.context

    async def _encode(self, value: Any, task_id: str) -> Output:
        return await self._keep(self._encode_now(value), value, task_id)

    def _encode_now(self, value: Any) -> Output | None:
        """The output as it travels; None where that is too much for the loop."""
        try:
            return outputs.encode(value, most_bytes=self._max_output_bytes, most_values=outputs.AT_ONCE)
        except TooMuch:
            return None

    async def _keep(self, output: Output | None, value: Any, task_id: str) -> Output:
        """The output, once what does not travel with it is in the store; made in a thread if it is not there yet."""
        if output is None:
            output = await self._kit.run_sync(lambda: outputs.encode(value, most_bytes=self._max_output_bytes))
        artifact, blob = output.payload.artifact, output.blob
        if artifact is not None and blob is not None:
            store = self._kit.store
            await patiently(lambda: store.put_blob(artifact.ref, blob, kind="artifact", for_task=task_id))
        return output


def _replays(attempt: Attempt) -> bool:
    """Whether a new attempt has to read again what earlier ones have read: what a function keeps in mind between two
    batches is gone with its attempt. One that yields is taken to keep nothing, unless it says so, or reads several
    streams side by side."""
    role = attempt.role
    if role.kind is Kind.CLASS:
        return False
    if role.said.replay is not None:
        return role.said.replay
    assert attempt.flow is not None
    return not role.yields or len(attempt.flow.plan.reads) > 1


def _is_being_cancelled() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def _hide_of(attempt: Attempt) -> Hide:
    """What makes of a text of the attempt one that may leave this process."""
    return as_it_is if attempt.cover is None else attempt.cover.text
