"""Handlers get the secrets that their inputs name, and nothing that they say takes one out of the worker."""

from __future__ import annotations

import base64
import json
import logging
from collections.abc import AsyncIterator, Callable, Collection, Iterator, Mapping, Sequence
from typing import Any

import pytest

from flowkit.core.code_policy import CodePolicies
from flowkit.core.redaction import Redactor
from flowkit.core.reports import AttemptReport, Failed, Succeeded
from flowkit.errors import Permanent
from flowkit.wire.messages import Job
from flowkit.worker.attempt_secrets import HandlerSecrets
from flowkit.worker.handlers.base import Batch, BatchResult, FinalizeResult, RoleHandler
from flowkit.worker.outcome import AttemptFailure
from flowkit.worker.results import Next
from tests.worker.stand import Stand, virtual

KEY = "sk-canary-5f2d77c1a9"
PIN = "1234567890"
DIGITS = 1234567890
VALUES = {"API_KEY": KEY, "PIN": PIN}


class Vault:
    """Secrets of a test, and who asked for which."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, tuple[str, ...], str]] = []

    async def resolve(self, job: Job, names: Sequence[str]) -> Mapping[str, str]:
        self.asked.append((job.node, tuple(names), job.ticket))
        if "FORBIDDEN" in names:
            raise AttemptFailure("E_SECRET_REFUSED", "flow 'x' may not use it", permanent=True)
        return {name: VALUES[name] for name in names if name in VALUES}

    def redactor(self, values: Collection[str]) -> Redactor:
        return Redactor(values)


def stand(handlers: Any, vault: Vault | None = None, *, policies: CodePolicies | None = None,
          listens: bool = True) -> Stand:  # fmt: skip
    secrets = HandlerSecrets(vault or Vault(), policies or CodePolicies())
    return Stand(handlers, options={"secrets": secrets, "run_sync": at_once}, capture_logging=listens)


async def at_once(function: Callable[[], Any]) -> Any:
    """Virtual time does not wait for threads."""
    return function()


def use(*names: str, holes: list[Any] | None = None, **more: Any) -> dict[str, Any]:
    """What a job says of the secrets of its handler's inputs: by default the first is the input `key`."""
    return {"code": {"secrets": list(names), "holes": [[["key"], names[0]]] if holes is None else holes, **more}}


def whole(stand: Stand) -> bytes:
    """All that has left the worker over the bus."""
    return b"".join(record.value or b"" for record in stand.bus.published)


def failure(report: AttemptReport) -> dict[str, Any]:
    assert isinstance(report, Failed), report
    return dict(report.error)


@pytest.mark.parametrize("kind", ["async", "plain"])
@virtual
async def test_a_handler_gets_the_value_and_its_output_is_covered(kind: str) -> None:
    got: list[Any] = []

    async def asking(key: str, n: int) -> dict[str, Any]:
        got.append((key, n))
        return {"key": key, "twice": [key + key, base64.b64encode(key.encode()).decode()], key: 1, "n": n}

    def plainly(key: str, n: int) -> dict[str, Any]:
        got.append((key, n))
        return {"key": key, "twice": [key + key, base64.b64encode(key.encode()).decode()], key: 1, "n": n}

    vault = Vault()
    async with stand({"role": asking if kind == "async" else plainly}, vault) as here:
        report = await here.run("role", {"key": None, "n": 3}, ticket="fk1...", **use("API_KEY"))

        assert got == [(KEY, 3)]
        assert vault.asked == [("n", ("API_KEY",), "fk1...")]
        assert isinstance(report, Succeeded)
        assert report.output.value == {
            "key": "[REDACTED]", "twice": ["[REDACTED]", "[REDACTED]"], "[REDACTED]": 1, "n": 3,
        }  # fmt: skip
        assert KEY.encode() not in whole(here)


@virtual
async def test_values_go_to_their_places_in_the_inputs_however_deep() -> None:
    got: list[Any] = []

    async def deep(inputs: Any) -> None:
        got.append(inputs)

    async with stand([deep]) as here:
        holes = [[["auth", 0, "token"], "API_KEY"], [["pin"], "PIN"]]
        await here.run("deep", {"auth": [{"token": None}, 2], "pin": None}, **use("API_KEY", "PIN", holes=holes))
        await here.run("deep", None, **use("API_KEY", holes=[[[], "API_KEY"]]))

    assert got == [{"auth": [{"token": KEY}, 2], "pin": PIN}, KEY]


@virtual
async def test_errors_are_covered_before_they_are_cut() -> None:
    async def raises(key: str, how: str) -> None:
        if how == "long":
            raise ValueError("x" * 8172 + key + "y" * 100)
        if how == "chained":
            try:
                raise LookupError(key)
            except LookupError as error:
                error.add_note(f"noted {key}")
                raise RuntimeError("outer") from error
        if how == "code":
            raise Permanent(f"bad_{key}", "no")
        raise type(f"Odd{key.replace('-', '')}", (Exception,), {})(key.encode().hex())

    async with stand([raises]) as here:
        for how in ("long", "chained", "code", "type"):
            said = json.dumps(failure(await here.run("raises", {"key": None, "how": how}, **use("API_KEY"))))
            for start in range(len(KEY) - 8):
                assert KEY[start : start + 9] not in said or how == "type"
            assert KEY not in said
            assert KEY.encode().hex() not in said
        assert KEY.encode() not in whole(here)


@virtual
async def test_lines_are_covered_in_the_task_s_log_and_in_the_process_s_own(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG, logger="flowkit.handler")

    async def speaks(key: str, ctx: Any) -> None:
        ctx.log.info("with %s", key, token=key, nested={"a": [key]}, pin=DIGITS)
        try:
            raise LookupError(key)
        except LookupError:
            ctx.log.exception("it failed with " + key)
        logging.getLogger("library").warning("calling with %s", key)

    async with stand([speaks]) as here:
        assert isinstance(await here.run("speaks", {"key": None}, **use("API_KEY", "PIN")), Succeeded)
        await here.runtime._logs.flush(5)
        said = b"".join(r.value or b"" for r in here.bus.published if r.topic == here.topics.logs)

    assert b"with [REDACTED]" in said
    assert b"calling with [REDACTED]" in said
    assert b"LookupError: [REDACTED]" in said
    assert KEY.encode() not in said
    assert PIN.encode() not in said
    own = [record for record in caplog.records if record.name == "flowkit.handler"]
    assert "it failed with [REDACTED]" in own[-1].getMessage()
    assert "LookupError: [REDACTED]" in own[-1].getMessage()
    assert not [record for record in own if KEY in repr(vars(record)) or PIN in repr(vars(record))]


@virtual
async def test_lines_are_covered_also_where_nobody_listens_to_libraries() -> None:
    async def speaks(key: str, ctx: Any) -> None:
        ctx.log.info("with %s", key)

    async with stand([speaks], listens=False) as here:
        await here.run("speaks", {"key": None}, **use("API_KEY"))
        await here.runtime._logs.flush(5)
        said = b"".join(r.value or b"" for r in here.bus.published if r.topic == here.topics.logs)

    assert b"with [REDACTED]" in said
    assert KEY.encode() not in said


@virtual
async def test_progress_artifacts_and_chosen_successors_are_covered() -> None:
    kept: list[Any] = []

    async def tells(key: str, ctx: Any) -> Next:
        ctx.progress(DIGITS, 2, f"at {key}")
        kept.append(ctx._attempt.progress)
        for reference in (await ctx.artifacts.put_bytes(b"a" + key.encode()), await ctx.artifacts.put_json({"k": key})):
            kept.append(await ctx.artifacts.get(reference))
        return Next([f"to {key}"], {"n": DIGITS})

    async with stand([tells]) as here:
        report = await here.run("tells", {"key": None}, **use("API_KEY", "PIN"))

    assert kept == [(None, 2.0, "at [REDACTED]"), b"a[REDACTED]", {"k": "[REDACTED]"}]
    assert isinstance(report, Succeeded)
    assert (report.next, report.output.value) == (("to [REDACTED]",), {"n": "[REDACTED]"})


@virtual
async def test_what_classes_and_generators_give_is_covered() -> None:
    class Loads(RoleHandler):
        role = "loads"

        async def load_input(self, input_ref: Any, input_inline: Any) -> Any:
            self.key = input_inline["key"]
            return input_inline

        async def iter_batches(self, loaded: Any) -> AsyncIterator[Batch]:
            yield Batch(batch_uid=f"b-{loaded['key']}", payload={"key": loaded["key"]})

        async def process_batch(self, batch: Batch, ctx: Any) -> BatchResult:
            return BatchResult(success=True, output=batch.payload, metrics={"seen": 1})

        async def finalize(self, ctx: Any) -> FinalizeResult | None:
            return None

    def yields(key: str) -> Iterator[str]:
        yield key
        return {"last": key}

    async with stand({"loads": Loads, "yields": yields}) as here:
        loaded = await here.run("loads", {"key": None}, **use("API_KEY"))
        yielded = await here.run("yields", {"key": None}, **use("API_KEY"))
        assert KEY.encode() not in whole(here)

    assert isinstance(loaded, Succeeded)
    assert isinstance(yielded, Succeeded)
    assert (loaded.output.value, yielded.output.value) == ({"key": "[REDACTED]"}, {"last": "[REDACTED]"})


@virtual
async def test_an_output_that_holds_one_fails_where_the_node_or_a_policy_says_so() -> None:
    async def leaks(key: str) -> str:
        return f"see {key}"

    async def keeps(key: str) -> int:
        return len(key)

    async with stand([leaks, keeps]) as here:
        leaked = await here.run("leaks", {"key": None}, **use("API_KEY", on_leak="fail"))
        kept = await here.run("keeps", {"key": None}, **use("API_KEY", on_leak="fail"))
    own = CodePolicies(every={"on_leak": "fail"})
    async with stand([leaks], policies=own) as here:
        by_policy = await here.run("leaks", {"key": None}, **use("API_KEY"))

    assert (failure(leaked)["code"], failure(by_policy)["code"]) == ("secret_in_output", "secret_in_output")
    assert isinstance(leaked, Failed)
    assert leaked.permanent
    assert KEY not in repr(leaked)
    assert isinstance(kept, Succeeded)


@virtual
async def test_what_may_not_be_had_fails_before_the_handler_begins() -> None:
    began: list[str] = []

    async def uses(key: str, ctx: Any) -> None:
        began.append(ctx.task_id)

    vault = Vault()
    sent = [["the policy of all code", {"secrets": ["ETL_*"]}]]
    async with stand([uses], vault) as here:
        unknown = await here.run("uses", {"key": None}, **use("NOWHERE"))
        refused = await here.run("uses", {"key": None}, **use("FORBIDDEN"))
        asked = len(vault.asked)
        by_policy = await here.run("uses", {"key": None}, **use("API_KEY", policy=sent))
    async with stand([uses], policies=CodePolicies(tenants={"default": {"secrets": "none"}})) as here:
        by_own = await here.run("uses", {"key": None}, **use("API_KEY"))

    assert failure(unknown)["code"] == "secret_unavailable"
    assert failure(refused)["code"] == "E_SECRET_REFUSED"
    assert [failure(one)["code"] for one in (by_policy, by_own)] == ["E_POLICY", "E_POLICY"]
    assert failure(by_policy)["message"] == (
        "the node asks for the secret 'API_KEY', and the policy of all code allows only ETL_*"
    )
    assert len(vault.asked) == asked, "nobody was asked for what may not be had"
    assert began == []


@virtual
async def test_a_worker_without_a_source_has_no_label_and_fails_what_comes_all_the_same() -> None:
    async def uses(key: str) -> None: ...

    async with Stand([uses]) as here:
        await here.until(lambda: here.hellos)
        report = await here.run("uses", {"key": None}, **use("API_KEY"))

        assert "flowkit.secrets" not in here.hellos[0].labels
        assert failure(report)["code"] == "no_secret_manager"
        assert isinstance(report, Failed)
        assert not report.permanent, "another worker may have one"
    async with stand([uses]) as here:
        await here.until(lambda: here.hellos)
        assert here.hellos[0].labels == {"flowkit.secrets": "yes"}


@virtual
async def test_attempts_without_secrets_are_not_looked_through() -> None:
    async def echo(inputs: Any) -> Any:
        return inputs

    async with stand([echo]) as here:
        report = await here.run("echo", {"text": KEY})

    assert isinstance(report, Succeeded)
    assert report.output.value == {"text": KEY}
