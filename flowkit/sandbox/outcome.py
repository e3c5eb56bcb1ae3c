"""What came of a program: its result, or the exact verdict on why there is none."""

from __future__ import annotations

import signal
from dataclasses import dataclass, field
from typing import Any, Final

from flowkit.sandbox.runtime import Ending, Limits, Usage, Verdict

FINISHED: Final = "finished"
EXCEPTION: Final = "exception"
BAD_OUTPUT: Final = "bad_output"
OOM: Final = "oom"
EXIT_STATUS: Final = "exit_status"
MB: Final = 1024 * 1024
HEAP_WORDS: Final = ("heap out of memory", "process out of memory", "Fatal javascript OOM", "std::bad_alloc")
"""What Node.js says before it ends itself for want of memory."""
LAST_WORDS: Final = 20


@dataclass(frozen=True, slots=True)
class Result:
    """What the program gave: `next` are the successors that it chose, None for all."""

    output: Any = None
    next: tuple[str, ...] | None = None
    message: str = ""


@dataclass(frozen=True, slots=True)
class Failure:
    """Why there is no result. `code` is that of the attempt's error; `final`: the code itself said that it is
    permanent."""

    code: str
    message: str
    type: str = ""
    traceback: str = ""
    permanent: bool = False
    final: bool = False
    retry_after: float | None = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """`verdict`: `finished`, `exception`, `bad_output`, `exit_status`, or that of the runtime: `oom`, `timeout`,
    `cpu_timeout`, `signal`, `killed`."""

    verdict: str
    usage: Usage
    result: Result | None = None
    failure: Failure | None = None


@dataclass(slots=True)
class Said:
    """What the program has said of its end so far. `last_words` are the last lines of its standard error. `starved`: it
    was ended because it waited for memory that it could not get."""

    result: Result | None = None
    failure: Failure | None = None
    wrong: str = ""
    starved: bool = False
    last_words: list[str] = field(default_factory=list)

    @property
    def ended(self) -> bool:
        return self.result is not None or self.failure is not None


def judge(ending: Ending, said: Said, limits: Limits) -> Outcome:
    """The verdict. A result that was given whole counts however the program ended after it; what was given twice, or
    cannot be read, counts for nothing."""
    usage = ending.usage
    if said.wrong:
        return Outcome(BAD_OUTPUT, usage, failure=Failure(BAD_OUTPUT, said.wrong, permanent=True))
    if said.result is not None:
        return Outcome(FINISHED, usage, said.result)
    if ending.verdict is Verdict.OOM or said.starved or _ran_out_of_memory(ending, said):
        return Outcome(OOM, usage, failure=Failure(OOM, _oom_words(usage, limits)))
    if said.failure is not None:
        verdict = BAD_OUTPUT if said.failure.code == BAD_OUTPUT else EXCEPTION
        return Outcome(verdict, usage, failure=said.failure)
    return _without_a_word(ending, said, limits)


def _without_a_word(ending: Ending, said: Said, limits: Limits) -> Outcome:
    words = "\n".join(said.last_words[-LAST_WORDS:])
    match ending.verdict:
        case Verdict.WALL:
            failure = Failure("timeout", f"it ran longer than {limits.wall_sec:g} s", "TimeoutError")
        case Verdict.CPU:
            failure = Failure("cpu_timeout", f"it used more than {limits.cpu_sec:g} s of CPU time", "TimeoutError")
        case Verdict.SIGNAL:
            failure = Failure("signal", f"it was killed by {_name_of(ending.signal)}", traceback=words)
        case Verdict.KILLED:
            failure = Failure("killed", "it was killed from outside")
        case _ if ending.status:
            failure = Failure(EXIT_STATUS, f"it ended with status {ending.status}", traceback=words)
            return Outcome(EXIT_STATUS, ending.usage, failure=failure)
        case _:
            failure = Failure(BAD_OUTPUT, "it ended without a result", traceback=words, permanent=True)
            return Outcome(BAD_OUTPUT, ending.usage, failure=failure)
    return Outcome(str(ending.verdict), ending.usage, failure=failure)


def _ran_out_of_memory(ending: Ending, said: Said) -> bool:
    if said.failure is not None:
        return said.failure.type == "MemoryError"
    heap = any(words in line for words in HEAP_WORDS for line in said.last_words)
    return heap and (ending.verdict is Verdict.SIGNAL or bool(ending.status))


def _oom_words(usage: Usage, limits: Limits) -> str:
    peak = usage.peak_memory_bytes
    at = "" if peak is None else f"; it had used {peak / MB:,.0f} MiB"
    return f"it needs more memory than its {limits.memory_mb:,} MiB{at}"


def _name_of(number: int | None) -> str:
    try:
        return signal.Signals(number or 0).name
    except ValueError:
        return f"signal {number}"


def usage_of(usage: Usage, verdict: str, level: int) -> dict[str, Any]:
    """A usage as it is recorded: what was not measured is not there."""
    numbers = {
        "wall_sec": round(usage.wall_sec, 6),
        "cpu_sec": round(usage.cpu_sec, 6),
        "peak_memory_bytes": usage.peak_memory_bytes,
        "read_bytes": usage.read_bytes,
        "written_bytes": usage.written_bytes,
        "received_bytes": usage.received_bytes,
        "sent_bytes": usage.sent_bytes,
    }
    known = {name: value for name, value in numbers.items() if value is not None}
    return {"verdict": verdict, "level": f"L{level}", **known}
