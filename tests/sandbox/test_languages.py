"""Node.js and Bash: the same contract, each in its own idiom."""

from __future__ import annotations

import textwrap
from typing import Any

import pytest

from flowkit.sandbox import languages
from flowkit.sandbox.errors import CannotStart
from flowkit.sandbox.outcome import Outcome
from flowkit.sandbox.runtime import Limits
from tests.sandbox.stand import Notes, run


def code(text: str) -> str:
    return textwrap.dedent(text).lstrip("\n")


async def node(source: str, inputs: Any = None, **options: Any) -> Outcome:
    options.setdefault("limits", Limits(memory_mb=512, wall_sec=60))
    return await run(code(source), inputs, language="node", file="step.js", **options)


async def bash(source: str, inputs: Any = None, **options: Any) -> Outcome:
    return await run(code(source), inputs, language="bash", file="step.sh", **options)


async def test_node_runs_a_function_and_speaks_as_it_goes() -> None:
    notes = Notes()
    source = """
        async function main(inputs) {
          console.log("printed", inputs.n);
          console.error("wrong");
          flowkit.log.debug("logged", {rows: 3});
          flowkit.progress(1, 4, "quarter");
          return {n: inputs.n + 1, none: undefined, data: inputs.data.length, stop: flowkit.cancelled()};
        }
    """

    outcome = await node(source, {"n": 1, "data": None}, bytes=[[["data"], "AAH/"]], notes=notes)

    assert outcome.result is not None
    assert outcome.result.output == {"n": 2, "data": 3, "stop": False}
    assert set(notes.lines) == {("info", "printed 1"), ("warning", "wrong"), ("debug", 'logged {"rows":3}')}
    assert notes.steps == [(1, 4, "quarter")]


async def test_node_takes_modules_of_both_kinds_and_chooses_successors() -> None:
    common = await node("exports.main = () => flowkit.next(['b'], Buffer.from([1, 255]))")
    modern = await node("import fs from 'node:fs';\nexport async function main() { return typeof fs.readFileSync; }")

    assert common.result is not None
    assert (common.result.next, common.result.output) == (("b",), b"\x01\xff")
    assert modern.result is not None
    assert modern.result.output == "function"


async def test_node_and_bash_hand_batches_on_too() -> None:
    notes = Notes()

    script = await node("async function* main(inputs) { yield 1; yield {a: inputs.a}; }", {"a": 2}, notes=notes)
    shell = await bash("flowkit_batch '[3]' && flowkit_result '\"done\"'", notes=notes)

    assert notes.batches == [1, {"a": 2}, [3]]
    assert (script.result and script.result.output, shell.result and shell.result.output) == ({"batches": 2}, "done")


@pytest.mark.parametrize(
    ("source", "words", "message"),
    [
        ("function main() { null.x }", "TypeError", "Cannot read"),
        ("function main() { throw new Error('no route') }", "Error", "no route"),
        ("function main( {", "SyntaxError", "Unexpected"),
        ("function main() { return {a: [new Set()]} }", "bad_output", "output.a[0]: JSON cannot say a Set"),
        ("function main() { return 0 / 0 }", "bad_output", "JSON has no NaN"),
        ("const x = 1", "bad_output", "define main"),
        ("setTimeout(() => { throw Error('late') }); function main() { return new Promise(() => 0) }", "Error", "late"),
        ("function main() { process.exit(3) }", "exit_status", "status 3"),
        ("function main() { process.kill(process.pid, 'SIGKILL') }", "signal", "SIGKILL"),
        ("x = `a {{{secret::KEY}}}`; function main() {}", "SyntaxError", "has to be a whole string"),
        ("x = '{{{secret::KEY}}}'; function main() {}", "secret_unavailable", "may not have the secret 'KEY'"),
    ],
)  # fmt: skip
async def test_every_end_of_node_has_its_name(source: str, words: str, message: str) -> None:
    outcome = await node(source)

    assert outcome.failure is not None
    assert outcome.failure.code == words
    assert message in outcome.failure.message
    assert "node.cjs" not in outcome.failure.traceback
    assert "node:" not in outcome.failure.traceback


async def test_nodes_stack_names_the_lines_of_the_code() -> None:
    outcome = await node("// a remark\nfunction main() {\n  throw new Error('here');\n}")

    assert outcome.failure is not None
    assert "step.js:3:9" in outcome.failure.traceback


async def test_node_out_of_memory_is_told_apart() -> None:
    source = "function main() { const kept = []; for (;;) kept.push(new Array(100000).fill(Math.random())); }"

    outcome = await node(source, limits=Limits(memory_mb=128, wall_sec=60))

    assert outcome.verdict == "oom"


@pytest.mark.parametrize(("memory_mb", "verdict"), [(16, "oom"), (32, "finished")])
async def test_node_with_next_to_no_memory_runs_or_says_so_at_once(memory_mb: int, verdict: str) -> None:
    outcome = await node("function main() { return 1 }", limits=Limits(memory_mb=memory_mb, wall_sec=60))

    assert outcome.verdict == verdict
    assert outcome.usage.wall_sec < 30  # it waited for ever, for a thread that could not be made


async def test_node_looks_secrets_up() -> None:
    outcome = await node("function main() { return '{{{secret::KEY}}}'.length + flowkit.secret('KEY').length }",
                         secrets={"KEY": "s'ec`ret"})  # fmt: skip

    assert outcome.result is not None
    assert outcome.result.output == 16


# ------------------------------------------------------------------------------------------ bash


async def test_bash_gets_its_inputs_and_gives_a_result() -> None:
    notes = Notes()
    source = r"""
        set -eu
        name=$(flowkit_input who.name)
        second=$(flowkit_input 'rows[1]')
        all=$(cat)
        flowkit_log warning "careful: $name"
        flowkit_progress 1 4 quarter
        echo "printed"
        flowkit_cancelled && echo "stopping"
        flowkit_result "{\"greeting\": \"hello $name\", \"second\": $second, \"length\": ${#all}}" left right
    """

    outcome = await bash(source, {"who": {"name": 'Ädä\n"x"'.replace('\n"x"', "")}, "rows": [1, {"a": 2}]}, notes=notes)

    assert outcome.failure is None
    assert outcome.result is not None
    assert outcome.result.output["greeting"] == "hello Ädä"
    assert outcome.result.output["second"] == {"a": 2}
    assert outcome.result.next == ("left", "right")
    assert set(notes.lines) == {("warning", "careful: Ädä"), ("info", "printed")}
    assert notes.steps == [(1, 4, "quarter")]


async def test_bash_without_a_result_gives_null_and_its_status_is_its_verdict() -> None:
    fine = await bash("true")
    wrong = await bash("echo 'what happened' >&2\nexit 3")
    killed = await bash("kill -SEGV $$")
    torn = await bash("if true; then")

    assert fine.result is not None
    assert fine.result.output is None
    assert (wrong.verdict, wrong.failure and wrong.failure.code) == ("exit_status", "exit_status")
    assert wrong.failure is not None
    assert (wrong.failure.message, wrong.failure.traceback) == ("it ended with status 3", "what happened")
    assert (killed.verdict, killed.failure and killed.failure.message) == ("signal", "it was killed by SIGSEGV")
    assert torn.failure is not None
    assert "line 2: syntax error" in torn.failure.traceback


async def test_bash_is_told_what_is_wrong_with_what_it_asks() -> None:
    notes = Notes()

    outcome = await bash("flowkit_result '{oops' || exit 4", notes=notes)

    assert (outcome.verdict, outcome.failure and outcome.failure.message) == ("exit_status", "it ended with status 4")
    assert any("flowkit: Expecting property name" in line for _, line in notes.lines)


async def test_a_secret_is_looked_up_by_bash_and_never_pasted_into_it() -> None:
    nasty = "$(touch pasted); `touch pasted`; ' \" \\ *"
    source = """
        key={{{secret::KEY}}}
        quoted="Bearer {{{secret::KEY}}}"
        [[ "$key" == "$(flowkit_secret KEY)" && "$quoted" == "Bearer $key" ]] && same=true || same=false
        [[ -e pasted ]] && pasted=true || pasted=false
        flowkit_result "{\\"same\\": $same, \\"pasted\\": $pasted, \\"length\\": ${#key}}"
    """

    outcome = await bash(source, secrets={"KEY": nasty})

    assert outcome.result is not None
    assert outcome.result.output == {"same": True, "pasted": False, "length": len(nasty)}


async def test_a_language_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(languages, "find", lambda name: None)

    with pytest.raises(CannotStart, match="there is no 'node' on this machine"):
        languages.program_for("node", Limits())
    assert languages.available() == ("python",)
