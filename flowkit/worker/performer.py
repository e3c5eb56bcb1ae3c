"""Performs one attempt: its inputs in, its handler run, its output out; the answer is the report."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable
from typing import Any

from flowkit.core.reports import AttemptReport, Succeeded
from flowkit.worker import outputs
from flowkit.worker.attempt import Attempt
from flowkit.worker.context import Context, Kit
from flowkit.worker.inputs import Inputs, patiently
from flowkit.worker.outcome import failed
from flowkit.worker.outputs import Output, TooMuch
from flowkit.worker.registry import Kind


class Performer:
    def __init__(self, kit: Kit, *, max_output_bytes: int) -> None:
        self._kit = kit
        self._max_output_bytes = max_output_bytes
        self._inputs = Inputs(kit.store, kit.run_sync)

    async def perform(self, attempt: Attempt, arm: Callable[[Attempt], None]) -> tuple[AttemptReport, int]:
        """The report, and how many bytes its output takes up in a message. `arm` is called when the handler begins:
        from then on its time runs. Raises `CancelledError` where the attempt was told to end."""
        job = attempt.job
        try:
            try:
                value, chosen = outputs.split(await self._run(attempt, arm))
                output = await self._encode(value, attempt.job.task_id)
            finally:
                if attempt.context is not None:
                    await attempt.context.close()
            report = Succeeded(job.node, job.attempt, job.token, output.payload, chosen, attempt.run_sec)
            return report, output.size
        except asyncio.CancelledError as error:
            if attempt.order is not None or _is_being_cancelled():
                raise
            # Nobody told it to end: the handler raised this by itself.
            failure: BaseException = error
        except (Exception, SystemExit) as error:
            failure = error
        classify = getattr(attempt.handler, "classify_error", None)
        run_sec = attempt.run_sec
        return failed(job.node, job.attempt, job.token, failure, run_sec=run_sec, classify=classify), 0

    async def _run(self, attempt: Attempt, arm: Callable[[Attempt], None]) -> Any:
        """What the handler returns."""
        job, clock = attempt.job, self._kit.clock
        if job.artifacts or job.body_ref or job.params_in_head:
            inputs, params, io = await self._inputs.gather(job)
        else:
            inputs, params, io = job.inputs, job.params, job.io
        begun = clock.mono()
        arm(attempt)
        try:
            if attempt.role.kind is Kind.CLASS:
                return await self._run_class(attempt, inputs, params, io or {})
            return await self._run_function(attempt, inputs, params)
        finally:
            attempt.run_sec = clock.mono() - begun
            attempt.clear_limits()

    async def _run_function(self, attempt: Attempt, inputs: Any, params: Any) -> Any:
        role = attempt.role
        assert role.binding is not None
        if not attempt.job.given and role.binding.takes_nothing:
            inputs = {}  # the node was given what came before it; a handler that asks for nothing may leave it there
        args, kwargs = role.binding.bind(inputs, lambda: self._context(attempt, params))
        if role.kind is Kind.ASYNC:
            return await role.call(*args, **kwargs)
        value = await self._kit.run_sync(lambda: role.call(*args, **kwargs))
        return await value if inspect.isawaitable(value) else value

    async def _run_class(self, attempt: Attempt, inputs: Any, params: Any, io: dict[str, Any]) -> Any:
        from flowkit.worker import batches

        attempt.handler = handler = attempt.role.call()
        return await batches.run(handler, inputs, self._context(attempt, params), io)

    def _context(self, attempt: Attempt, params: Any) -> Context:
        attempt.context = Context(attempt, self._kit, params)
        return attempt.context

    async def _encode(self, value: Any, task_id: str) -> Output:
        try:
            output = outputs.encode(value, most_bytes=self._max_output_bytes, most_values=outputs.AT_ONCE)
        except TooMuch:
            output = await self._kit.run_sync(lambda: outputs.encode(value, most_bytes=self._max_output_bytes))
        artifact, blob = output.payload.artifact, output.blob
        if artifact is not None and blob is not None:
            store = self._kit.store
            await patiently(lambda: store.put_blob(artifact.ref, blob, kind="artifact", for_task=task_id))
        return output


def _is_being_cancelled() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
