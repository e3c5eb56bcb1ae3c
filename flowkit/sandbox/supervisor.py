"""Runs one program from its start to its verdict: feeds it, answers it, hears what it says, and sees it gone.

The program asks and the supervisor answers; nothing that it sends can do more than end its own attempt.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from flowkit.sandbox import spoken
from flowkit.sandbox.frames import LARGE_BYTES, BadFrame, FrameReader, decode, encode
from flowkit.sandbox.lines import Budget, NothingSecret, Printed, Redactor
from flowkit.sandbox.outcome import BAD_OUTPUT, Failure, Outcome, Result, Said, judge
from flowkit.sandbox.runtime import Ending, Program, Running, Runtime, Usage, Verdict
from flowkit.sandbox.starving import Starving

READ_BYTES: Final = 256 * 1024
FRAME_OVERHEAD: Final = 64 * 1024
"""A frame with an output of the greatest size has a few more bytes: a message, names, escapes."""
MOST_FRAMES: Final = 1_000_000
FRAMES_AT_ONCE: Final = 200
LOOK_SEC: Final = 0.5
EXIT_SEC: Final = 5.0
"""How long a program may take to end once it has given its result."""
LAST_SEC: Final = 5.0
"""How long what a dead program has said is still read."""
GONE_SEC: Final = 30.0
LEAK: Final = "secret_in_output"
LEAKED: Final = "its output holds a secret, and `on_leak` says that it then fails; let the code give only what is none"
HALF_A_SECRET: Final = 2_000
"""What is found as one is never longer, in any form; so much goes where a text was cut before it could be covered."""
MB: Final = 1024 * 1024


class Ears(Protocol):
    """Who hears of a program while it runs."""

    def started(self, pid: int, end_signal: int) -> None: ...
    def log(self, level: str, message: str) -> None: ...
    def progress(self, done: float | None, total: float | None, message: str) -> None: ...
    def cancelled(self) -> bool: ...
    async def batch(self, value: Any) -> None: ...


@dataclass(frozen=True, slots=True)
class Work:
    """One program to run: `job` is what it is told when it asks what there is to do; `secrets` are those that it may
    look up, which `redactor` takes out of whatever leaves it. `large`: writing the job down is no work for the loop.
    `fails_on_leak`: an output with a secret in it is a failure."""

    program: Program
    job: Mapping[str, Any]
    secrets: Mapping[str, str] = field(default_factory=dict)
    redactor: Redactor = field(default_factory=NothingSecret)
    large: bool = False
    fails_on_leak: bool = False

    @property
    def most_bytes(self) -> int:
        """How large a result may be."""
        return self.program.limits.output_mb * MB


class Supervision:
    """One run of one program. `ending` is known once it is gone, however `run` ended."""

    def __init__(self, runtime: Runtime, work: Work, ears: Ears) -> None:
        self._runtime = runtime
        self._work = work
        self._ears = ears
        self._said = Said()
        self._budget = Budget(work.program.limits.output_mb, ears.log)
        self._begun = False
        self._result_came: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._looking: asyncio.TimerHandle | None = None
        self._fault: Exception | None = None
        self._leaked = False
        self.ending: Ending | None = None

    async def run(self, grace_sec: Callable[[], float]) -> Outcome:
        """The verdict. Cancelled, it asks the program to end, and kills it `grace_sec()` seconds later. Raises
        `CannotStart`, and what the ears raise, once the program is gone."""
        running = await self._runtime.start(self._work.program)
        self._ears.started(running.pid, running.end_signal)
        self._look_again(Starving(running.pid))
        talking = asyncio.ensure_future(self._talk(running))
        out = Printed("info", self._budget, self._work.redactor)
        err = Printed("warning", self._budget, self._work.redactor)
        reading = [
            asyncio.ensure_future(_drain(running.stdout, out)),
            asyncio.ensure_future(_drain(running.stderr, err)),
        ]
        ending = asyncio.ensure_future(running.wait())
        try:
            await self._until_it_ends(running, ending, talking)
            self.ending = ending.result()
            saying: set[asyncio.Future[None]] = {talking, *reading}
            if not all(task.done() for task in saying):
                await asyncio.wait(saying, timeout=LAST_SEC)
            for task in saying:
                if task.done():
                    task.result()
        except asyncio.CancelledError:
            await self._end(running, ending, grace_sec())
            raise
        finally:
            self._stop_looking()
            everything: set[asyncio.Future[Any]] = {talking, *reading, ending}
            if unfinished := {part for part in everything if not part.done()}:
                for part in unfinished:
                    part.cancel()
                await asyncio.wait(unfinished)
            running.channel.close()
            if self.ending is None and not ending.cancelled() and ending.exception() is None:
                self.ending = ending.result()
        if self._fault is not None:
            raise self._fault
        self._said.last_words = list(err.last)
        return self._without_secrets(judge(self.ending, self._said, self._work.program.limits))

    async def _until_it_ends(self, running: Running, ending: asyncio.Future[Ending],
                             talking: asyncio.Future[None]) -> None:  # fmt: skip
        """Of itself, or because it said what cannot be, or went on for too long after its result."""
        came = self._result_came
        waiting: set[asyncio.Future[Any]] = {ending, talking, came}
        while not (ending.done() or came.done() or self._spoilt):  # it may close the channel, and go on
            _, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        patience: tuple[set[asyncio.Future[Any]], ...] = ({ending, talking}, {ending})
        for more in patience:
            if not (ending.done() or self._spoilt or (talking in more and talking.done())):
                await asyncio.wait(more, timeout=EXIT_SEC, return_when=asyncio.FIRST_COMPLETED)
        if not ending.done():
            await running.kill()
            await asyncio.wait({ending}, timeout=GONE_SEC)

    @property
    def _spoilt(self) -> bool:
        """Whether nothing good can come any more."""
        return bool(self._said.wrong) or self._said.starved or self._fault is not None

    def _look_again(self, starving: Starving) -> None:
        """Until it has asked what there is to do: afterwards it may wait for whatever it likes."""
        self._looking = asyncio.get_running_loop().call_later(LOOK_SEC, self._look, starving)

    def _look(self, starving: Starving) -> None:
        if not starving.look():
            self._look_again(starving)
            return
        self._said.starved = True
        if not self._result_came.done():
            self._result_came.set_result(None)

    def _stop_looking(self) -> None:
        if self._looking is not None:
            self._looking.cancel()
            self._looking = None

    async def _end(self, running: Running, ending: asyncio.Future[Ending], grace_sec: float) -> None:
        """Whoever cancels once more does not wait for the grace; that it is killed is waited for."""
        try:
            if grace_sec > 0 and not ending.done():
                running.terminate()
                await asyncio.wait({ending}, timeout=grace_sec)
        finally:
            if not ending.done():
                await asyncio.shield(asyncio.ensure_future(running.kill()))

    # ------------------------------------------------------------------------------------------ the channel

    async def _talk(self, running: Running) -> None:
        loop = asyncio.get_running_loop()
        reader = FrameReader(self._work.most_bytes + FRAME_OVERHEAD)
        count = 0
        try:
            while data := await loop.sock_recv(running.channel, READ_BYTES):
                for body in reader.feed(data):
                    message = await asyncio.to_thread(decode, body) if len(body) > LARGE_BYTES else decode(body)
                    await self._answer(running, message)
                    count += 1
                    if count % FRAMES_AT_ONCE == 0:
                        await asyncio.sleep(0)
                    if count > MOST_FRAMES:
                        raise BadFrame(f"more than {MOST_FRAMES:,} frames")
            reader.end()
        except BadFrame as error:
            self._said.wrong = str(error)
        except ConnectionError:
            return  # it is gone, with what it had not said
        except Exception as error:  # whoever hears of it cannot: the program is ended, and that is what is raised
            self._fault = error

    async def _answer(self, running: Running, message: dict[str, Any]) -> None:
        match message["do"]:
            case "log":
                level, text = spoken.log_line(message)
                for line in self._work.redactor.text(text).split("\n"):
                    self._budget.line(level, line)
            case "progress":
                done, total, text = spoken.progress(message)
                self._ears.progress(self._number(done), self._number(total), self._told(text, spoken.MOST_MESSAGE))
            case "batch" if not self._said.ended:
                if "output" not in message:
                    raise BadFrame("a batch without `output`")
                covered = self._work.redactor.value(message["output"])
                if self._work.fails_on_leak and self._leaks(Result(message["output"])):
                    self._leaked = True
                    raise BadFrame(LEAKED)
                await self._ears.batch(covered)
                await self._send(running, {})
            case "result":
                self._note(result=spoken.result(message))
            case "failed":
                self._note(failure=spoken.failure(message))
            case "start":
                if self._begun:
                    raise BadFrame("it asked twice what there is to do")
                self._begun = True
                self._stop_looking()
                await self._send(running, dict(self._work.job), in_thread=self._work.large)
            case "secret":
                await self._send(running, self._secret(message.get("name")))
            case "cancelled":
                await self._send(running, {"value": self._ears.cancelled()})
            case other:
                raise BadFrame(f"nobody knows what {self._told(other, 40)!r} means")

    async def _send(self, running: Running, answer: dict[str, Any], *, in_thread: bool = False) -> None:
        data = await asyncio.to_thread(encode, answer) if in_thread else encode(answer)
        await asyncio.get_running_loop().sock_sendall(running.channel, data)

    def _secret(self, name: object) -> dict[str, Any]:
        if isinstance(name, str) and name in self._work.secrets:
            return {"value": self._work.secrets[name]}
        known = ", ".join(sorted(self._work.secrets)) or "none"
        shown = repr(name[:128]) if isinstance(name, str) else "that"
        return {"error": f"the node may not have the secret {shown}; its `secrets` are: {known}"}

    def _note(self, result: Result | None = None, failure: Failure | None = None) -> None:
        if self._said.ended:
            raise BadFrame("it gave more than one result")
        self._said.result, self._said.failure = result, failure
        if not self._result_came.done():
            self._result_came.set_result(None)

    # ------------------------------------------------------------------------------------------ what leaves

    def _without_secrets(self, outcome: Outcome) -> Outcome:
        result, failure, name = outcome.result, outcome.failure, self._name
        if result is not None:
            if self._work.fails_on_leak and self._leaks(result):
                return Outcome(BAD_OUTPUT, outcome.usage, failure=Failure(LEAK, LEAKED, permanent=True))
            names = None if result.next is None else tuple(name(one, 2 * spoken.LONGEST_CODE) for one in result.next)
            output = self._work.redactor.value(result.output)
            result = Result(output, names, self._told(result.message, spoken.MOST_MESSAGE))
        if failure is not None:
            failure = Failure(
                code=LEAK if self._leaked else name(failure.code, spoken.LONGEST_CODE),
                message=self._told(failure.message, spoken.MOST_MESSAGE),
                type=name(failure.type, spoken.LONGEST_CODE),
                traceback=self._told(failure.traceback, spoken.MOST_TRACEBACK, keep_end=True),
                permanent=failure.permanent,
                final=failure.final,
                retry_after=self._number(failure.retry_after),
            )
        return Outcome(outcome.verdict, outcome.usage, result, failure)

    def _leaks(self, result: Result) -> bool:
        """Whether there is something to cover in what the program gave."""
        given = [result.output, *(result.next or ())]
        return any(self._work.redactor.value(one) is not one for one in given)

    def _told(self, text: str, most: int, *, keep_end: bool = False) -> str:
        """A text as it may leave. It is covered before it is cut: half a secret is one too."""
        cut = len(text) >= spoken.LONGEST_SAID  # by the program, at either end, or here
        covered = self._work.redactor.text(text[: spoken.LONGEST_SAID])
        if cut and self._work.secrets:
            covered = covered[HALF_A_SECRET:-HALF_A_SECRET]
        return spoken.shortened(covered, most, keep_end=keep_end)

    def _name(self, text: str, most: int) -> str:
        return spoken.tidy(self._told(text, most), most)

    def _number(self, number: float | None) -> float | None:
        """None for one whose digits are a secret."""
        return number if self._work.redactor.value(number) == number else None

    @property
    def usage(self) -> Usage:
        return self.ending.usage if self.ending is not None else Usage(0.0, 0.0)

    @property
    def verdict(self) -> str:
        return str(self.ending.verdict if self.ending is not None else Verdict.KILLED)


async def _drain(stream: asyncio.StreamReader, printed: Printed) -> None:
    try:
        with contextlib.suppress(ConnectionError):
            while data := await stream.read(READ_BYTES):
                printed.feed(data)
    finally:
        printed.end()
