"""Runs the code of nodes of type `code`: puts together what each program is told, and turns what comes of it into what
a handler would have returned or raised."""

from __future__ import annotations

import asyncio
import base64
import logging
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any, Final

from flowkit.core import payload
from flowkit.core.code import LEVEL_LABEL, LONGEST_SOURCE, RUNTIME_LABEL, WHOLE
from flowkit.core.code_policy import (
    NOTHING_SAID,
    USUAL,
    CodePolicies,
    Rules,
    bounded,
    breaches,
    fails_on_leak,
    rules_of,
    strictest,
    who_asks,
)
from flowkit.errors import Corrupt
from flowkit.sandbox.errors import CannotStart
from flowkit.sandbox.languages import SUFFIXES, available, program_for
from flowkit.sandbox.lines import NothingSecret, Redactor
from flowkit.sandbox.outcome import Result, usage_of
from flowkit.sandbox.runtime import Level, Limits, Runtime
from flowkit.sandbox.supervisor import Supervision, Work
from flowkit.wire.messages import Job
from flowkit.worker.attempt import Attempt
from flowkit.worker.attempt_secrets import Secrets, put, resolved
from flowkit.worker.context import Context
from flowkit.worker.orphans import Undertaker
from flowkit.worker.outcome import AttemptFailure, ProgramFailure
from flowkit.worker.processes import Groups
from flowkit.worker.results import Next

USUAL_SEC: Final = 300.0
AHEAD_SEC: Final = 0.5
"""A program is killed so long before nobody waits for its attempt any more."""
LARGE: Final = 64 * 1024
TRANSIENT: Final = frozenset({"cannot_start", "install_failed", "E_SANDBOX_START", "E_SANDBOX_CGROUP"})
"""Why a program could not be started that may be otherwise at the next attempt."""
NUMBERS: Final = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}

Emit = Callable[[Any], Awaitable[None]]
Install = Callable[[Sequence[str]], AbstractAsyncContextManager[Path]]


class Programs:
    """What this worker can do for code. `find_runtime` finds out how, when that is first asked for; `expected` is the
    level that will come of it. `folder` is where the `file`s of nodes are; `install` makes the packages of some
    requirements available in a folder; `secrets` None: nodes that name some fail."""

    def __init__(self, find_runtime: Callable[[], Awaitable[Runtime]], *, expected: Level, folder: Path | None = None,
                 install: Install | None = None, secrets: Secrets | None = None,
                 policies: CodePolicies = NOTHING_SAID) -> None:  # fmt: skip
        self._find_runtime = find_runtime
        self._expected = expected
        self._runtime: Runtime | None = None
        self._finding = asyncio.Lock()
        self._folder = folder
        self._install = install
        self._secrets = secrets
        self._policies = policies

    @property
    def level(self) -> Level:
        return self._expected if self._runtime is None else self._runtime.level

    async def open(self) -> Runtime:
        """Find out how programs run here, once. Raises `CannotStart`."""
        async with self._finding:
            if self._runtime is None:
                self._runtime = await self._find_runtime()
            return self._runtime

    @property
    def labels(self) -> dict[str, str]:
        """The labels by which nodes find this worker."""
        languages = {f"{RUNTIME_LABEL}{name}": "yes" for name in available() if name != "python"}
        return {LEVEL_LABEL: self.level.name, **languages}

    async def close(self) -> None:
        if self._runtime is not None:
            await self._runtime.close()

    async def run(self, attempt: Attempt, inputs: Any, code: Mapping[str, Any], context: Context,
                  undertaker: Undertaker, emit: Emit, begin: Callable[[], None]) -> Any:  # fmt: skip
        """What the program gave; batches go to `emit`, and where there are none, what it gave does. `begin` is called
        when all is ready for it, and may raise what keeps it from beginning. Raises `ProgramFailure`, `AttemptFailure`,
        and `CancelledError` once the program is gone."""
        try:
            runtime = await self.open()
            rules = self._rules(attempt.job, code)
            _check(code, rules, runtime.level)
            async with self._packages(code.get("requirements", [])) as packages:
                work = await self._work(attempt.job, inputs, code, packages, rules, context.traceparent)
                ears = _Ears(attempt, context, undertaker, emit)
                begin()
                result = await self._supervised(Supervision(runtime, work, ears), attempt)
                value = given(result, whole=code.get("result") == WHOLE)
                if not ears.batches:
                    await emit(value.output if isinstance(value, Next) else value)
                return value
        except CannotStart as error:
            raise AttemptFailure(error.code, str(error), permanent=error.code not in TRANSIENT) from error

    async def _supervised(self, supervision: Supervision, attempt: Attempt) -> Result:
        verdict = ""
        try:
            outcome = await supervision.run(lambda: _grace_sec(attempt))
            verdict = outcome.verdict
        finally:
            if supervision.ending is not None:
                attempt.usage = usage_of(supervision.usage, verdict or supervision.verdict, self.level)
            if attempt.groups is not None:
                attempt.groups.forget()
        if outcome.failure is not None:
            raise ProgramFailure(outcome.failure)
        assert outcome.result is not None
        return outcome.result

    def _rules(self, job: Job, code: Mapping[str, Any]) -> Rules:
        """The policies that came along with the attempt, and this worker's own."""
        try:
            return (*rules_of(code.get("policy", ())), *self._policies.of(job.tenant, code.get("flow", "")))
        except (TypeError, ValueError) as error:
            raise Corrupt(f"node {job.node!r} came with policies that cannot be read: {error}") from error

    async def _work(self, job: Job, inputs: Any, code: Mapping[str, Any], packages: Path | None, rules: Rules,
                    traceparent: str) -> Work:  # fmt: skip
        names = code.get("secrets", [])
        values, redactor = await self._resolve(job, names)
        for place, name in code.get("holes", []):
            inputs = put(inputs, place, values[name])
        inputs, rows = lift_bytes(inputs)
        language = code["runtime"]
        source = code.get("source") or await self._read(code.get("file", ""))
        limits = _limits(code["limits"], job, rules)
        told = {
            "inputs": inputs,
            "bytes": rows,
            "source": source,
            "file": code.get("file") or f"{job.node}{SUFFIXES[language]}",
            "node": job.node,
            "task_id": job.task_id,
            "attempt": job.attempt,
            "idempotency_key": job.idempotency_key,
            "runner_id": str(uuid.uuid5(uuid.NAMESPACE_OID, f"{job.task_id}/{job.node}/{job.attempt}")),
            "path": [str(packages)] if packages else [],
            "secrets": list(names),
            "traceparent": traceparent,
            "most_bytes": limits.output_mb * 1024 * 1024,
        }
        program = program_for(
            language, limits, network=code.get("network", ()), packages=told["path"],
            warm=f"python {packages or ''}".strip(),
        )  # fmt: skip
        large = len(source) > LARGE or bool(rows) or bool(job.body_ref)
        return Work(program, told, values, redactor, large, fails_on_leak(code.get("on_leak", ""), rules))

    async def _resolve(self, job: Job, names: Sequence[str]) -> tuple[Mapping[str, str], Redactor]:
        if not names:
            return {}, NothingSecret()
        if self._secrets is None:
            say = f"the node needs the secrets {', '.join(names)}, and this worker was given no secret manager"
            raise AttemptFailure("no_secret_manager", say, permanent=True)
        values = await resolved(self._secrets, job, names)
        return values, self._secrets.redactor(list(values.values()))

    async def _read(self, name: str) -> str:
        if self._folder is None:
            say = f"the code is in the file {name!r}, and this worker has no folder for code: set code_dir"
            raise AttemptFailure("code_missing", say, permanent=True)
        return await asyncio.to_thread(_read, self._folder, name)

    @asynccontextmanager
    async def _packages(self, requirements: Sequence[str]) -> AsyncIterator[Path | None]:
        if not requirements:
            yield None
            return
        if self._install is None:
            say = f"the code needs {', '.join(requirements)}, and this worker installs nothing: set code_index"
            raise AttemptFailure("no_packages", say, permanent=True)
        async with self._install(requirements) as packages:
            yield packages


class _Ears:
    """Passes what a program says on as if its node's handler said it."""

    def __init__(self, attempt: Attempt, context: Context, undertaker: Undertaker, emit: Emit) -> None:
        self.batches = 0
        self._attempt = attempt
        self._emit = emit
        self._context = context
        self._undertaker = undertaker

    def started(self, pid: int, end_signal: int) -> None:
        if self._attempt.groups is None:
            self._attempt.groups = Groups(self._undertaker)
        self._attempt.groups.add_keeper(pid, end_signal)

    def log(self, level: str, message: str) -> None:
        self._context.log.log(NUMBERS[level], "%s", message)

    def progress(self, done: float | None, total: float | None, message: str) -> None:
        self._context.progress(done, total, message)

    def cancelled(self) -> bool:
        return self._context.cancelled()

    async def batch(self, value: Any) -> None:
        self.batches += 1
        await self._emit(value)


def given(result: Result, *, whole: bool) -> Any:
    """What a handler would have returned; `whole`: as the SDK's scripts give it, for those who route by themselves."""
    if whole:
        return {"nodes": list(result.next or ()), "outputs": result.output, "message": result.message}
    return result.output if result.next is None else Next(result.next, result.output)


def _grace_sec(attempt: Attempt) -> float:
    return 0.0 if attempt.order is None else max(0.0, attempt.order.grace_sec - AHEAD_SEC)


def _check(code: Mapping[str, Any], rules: Rules, level: Level) -> None:
    """Raise `AttemptFailure` for code that asks for more than it may have, and where it is not shut in far enough."""
    if code.get("level", "") > level.name:
        say = f"the node asks for level {code['level']}, this worker has {level.name}"
        raise AttemptFailure("level_unavailable", say, permanent=True)
    if breach := next(breaches(code, rules), None):
        raise AttemptFailure("E_POLICY", f"the code {breach[1]}", permanent=True)
    rule = strictest(rules)
    if rule is not None and rule.level > level.name:
        say = f"{who_asks(rules)}, and this worker has {level.name}"
        raise AttemptFailure("level_unavailable", say, permanent=False)  # another worker may have it


def _limits(said: Mapping[str, Any], job: Job, rules: Rules) -> Limits:
    """A node's own time limit bounds its program where nothing else is said; its CPU time is bounded only by name."""
    usual_sec = job.run_sec if job.run_sec is not None else USUAL_SEC
    said = bounded(said, rules, {**USUAL, "wall_sec": usual_sec})
    wall_sec = said.get("wall_sec", usual_sec)
    said = bounded(said, rules, {"cpu_sec": wall_sec * max(1.0, said.get("cpu", 1.0))})
    cpu_sec = said.get("cpu_sec", wall_sec * max(1.0, said.get("cpu", 1.0)))
    return Limits(**{**said, "wall_sec": wall_sec, "cpu_sec": cpu_sec})


def _read(folder: Path, name: str) -> str:
    try:
        home = folder.resolve(strict=True)
        path = (home / name).resolve(strict=True)
        if not path.is_relative_to(home) or not path.is_file():
            raise AttemptFailure("code_missing", f"{name!r} is no file in the worker's folder for code", permanent=True)
        if path.stat().st_size > LONGEST_SOURCE:
            raise AttemptFailure("code_missing", f"{name!r} has more than {LONGEST_SOURCE:,} bytes", permanent=True)
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise AttemptFailure(
            "code_missing", f"the code's file {name!r} cannot be read: {error}", permanent=True
        ) from error


def lift_bytes(inputs: Any) -> tuple[Any, list[list[Any]]]:
    """The inputs with null where bytes were, and those with their places, as base64."""
    lifted, found = payload.lift_bytes(inputs)
    return lifted, [[list(place), base64.b64encode(data).decode()] for place, data in found]
