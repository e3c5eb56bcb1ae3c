"""`flowkit secrets`: a value comes in by stdin or a prompt, and goes out only where that is asked for and recorded."""

from __future__ import annotations

import asyncio
import base64
import io
import os
import pty
import signal
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

import flowkit
from flowkit.cli import parser
from flowkit.clock import SystemClock
from flowkit.core.redaction import Redactor
from flowkit.ports import SecretUse
from flowkit.secrets.client import SecretClient
from flowkit.wire.tickets import TicketOffice
from tests.cli.conftest import Begin, Cli, Ran, environment

DB = ("--db", "flow.db")
VALUE = "correct horse battery"

Feed = Callable[..., Ran]


class Stdin(io.TextIOWrapper):
    def __init__(self, data: bytes) -> None:
        super().__init__(io.BytesIO(data))


@pytest.fixture
def feed(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> Feed:
    """Runs a command with this on its stdin."""

    def feed(value: str | bytes, *words: str) -> Ran:
        monkeypatch.setattr("sys.stdin", Stdin(value if isinstance(value, bytes) else value.encode()))
        return cli("secrets", *words, *DB)

    return feed


def test_the_first_secret_makes_a_master_key_for_its_owner_and_says_so(feed: Feed, folder: Path) -> None:
    ran = feed(f"{VALUE}\n", "set", "DB_PASSWORD")
    assert (ran.code, ran.out) == (0, "DB_PASSWORD@1\n")
    assert f"made a master key, in {folder / 'flow.db.keys'} (mode 0600). Keep a copy" in ran.err
    assert stat.S_IMODE((folder / "flow.db.keys").stat().st_mode) == 0o600
    again = feed("another value of it", "set", "DB_PASSWORD")
    assert (again.code, again.out, again.err) == (0, "DB_PASSWORD@2\n", "")
    stored = b" ".join(path.read_bytes() for path in folder.glob("flow.db*"))
    assert not Redactor([VALUE, "another value of it"]).spans(stored)  # in no form


def test_what_is_shown_has_no_value_unless_it_is_asked_for(feed: Feed, cli: Cli) -> None:
    feed(VALUE, "set", "KEY", "--flow", "etl-*", "--node", "load")
    for words in ("get KEY", "get KEY@1", "list", "audit", "get KEY --json", "list --json", "audit KEY --json"):
        ran = cli("secrets", *words.split(), *DB)
        assert ran.code == 0
        assert "KEY" in ran.out
        assert VALUE not in ran.out + ran.err
    shown = cli("secrets", "get", "KEY", *DB).out
    assert "flows  etl-*" in shown
    assert "nodes  load" in shown
    assert cli("secrets", "get", "KEY", "--reveal", *DB).out == f"{VALUE}\n"
    assert cli("secrets", "get", "KEY", "--reveal", "--json", *DB).json == {"name": "KEY", "value": VALUE}
    rows = cli("secrets", "audit", "KEY", "--json", *DB).json["rows"]
    assert [row["action"] for row in rows] == ["reveal", "reveal", "set"]
    assert all(row["principal"].startswith("cli:") for row in rows)


@pytest.mark.parametrize(
    ("given", "words", "kept"),
    [
        (b"value-itself\n", (), "value-itself"),
        (b"value-itself\r\n", (), "value-itself"),
        (b"value-itself\n\n", (), "value-itself\n"),
        (b"value-itself\n", ("--keep-newline",), "value-itself\n"),
        ("-----BEGIN\nlines \u00fc\n".encode(), (), "-----BEGIN\nlines \u00fc"),
    ],
)
def test_one_newline_at_the_end_is_not_part_of_it(
    feed: Feed, cli: Cli, given: bytes, words: tuple[str, ...], kept: str
) -> None:
    feed(given, "set", "KEY", *words)
    assert cli("secrets", "get", "KEY", "--reveal", "--json", *DB).json["value"] == kept


@pytest.mark.parametrize(
    ("value", "name", "why"),
    [
        ("", "KEY", "would be empty: give a value, or delete it [E_SECRET_VALUE]"),
        ("\n", "KEY", "would be empty"),
        (b"\xff\xfe\x00", "KEY", "stdin is not UTF-8; give bytes as base64"),
        ("x" * 70_000, "KEY", "at most 65536"),
        (VALUE, "A B", "'A B' is no name of a secret: write letters, digits"),
        (VALUE, "KEY@2", "names a version; name the secret: 'KEY' [E_SECRET_NAME]"),
    ],
)
def test_what_is_no_secret_is_refused_as_bad_usage(feed: Feed, value: str | bytes, name: str, why: str) -> None:
    ran = feed(value, "set", name)
    assert (ran.code, ran.out) == (2, "")
    assert why in ran.err
    assert VALUE not in ran.err


def test_a_short_value_is_taken_with_a_warning(feed: Feed) -> None:
    ran = feed("hunter2", "set", "PIN")
    assert ran.code == 0
    assert "fewer than 8 characters, so it cannot be redacted safely" in ran.err
    assert "hunter2" not in ran.err


def test_no_option_takes_a_value() -> None:
    with pytest.raises(SystemExit):
        parser.make_parser().parse_args(["secrets", "set", "KEY", VALUE])
    with pytest.raises(SystemExit):
        parser.make_parser().parse_args(["secrets", "set", "KEY", "--value", VALUE])


def test_it_can_be_said_anew_who_may_use_it(feed: Feed, cli: Cli) -> None:
    feed(VALUE, "set", "KEY", "--flow", "etl", "--node", "load")
    assert cli("secrets", "allow", "KEY", "--any-flow", "--node", "send", *DB).out == "KEY@2\n"
    view = cli("secrets", "get", "KEY", "--json", *DB).json
    assert (view["flows"], view["nodes"]) == ([], ["send"])
    ran = cli("secrets", "allow", "KEY", *DB)
    assert (ran.code, "say who may use it: --flow" in ran.err) == (2, True)
    assert cli("secrets", "allow", "NONE", "--any-flow", *DB).code == 1


def test_secrets_are_listed_in_pages_deleted_and_missed_with_the_nearest_name(feed: Feed, cli: Cli) -> None:
    for name in ("A_KEY", "B_KEY", "C_KEY"):
        feed(VALUE, "set", name)
    ran = cli("secrets", "list", "--limit", "2", *DB)
    assert [line.split()[0] for line in ran.out.splitlines()] == ["NAME", "A_KEY", "B_KEY"]
    assert "--cursor B_KEY" in ran.err
    assert cli("secrets", "list", "--cursor", "B_KEY", *DB).out.splitlines()[1].split()[0] == "C_KEY"

    assert cli("secrets", "delete", "B_KEY", *DB).code == 0
    ran = cli("secrets", "delete", "B_KEY", *DB)
    assert (ran.code, ran.err) == (1, "flowkit: there is no secret 'B_KEY'\n")
    ran = cli("secrets", "get", "A_KYE", *DB)
    assert (ran.code, "did you mean 'A_KEY'?" in ran.err, "[E_SECRET_UNKNOWN]" in ran.err) == (1, True, True)


def test_tenants_have_secrets_of_their_own(feed: Feed, cli: Cli) -> None:
    feed(VALUE, "set", "KEY")
    assert feed("of the other tenant", "set", "KEY", "--tenant", "acme").out == "KEY@1\n"
    assert feed("", "get", "KEY", "--reveal", "--tenant", "acme").out == "of the other tenant\n"
    assert feed("", "get", "KEY", "--reveal").out == f"{VALUE}\n"
    assert [row["action"] for row in feed("", "audit", "--json", "--tenant", "acme").json["rows"]] == ["reveal", "set"]
    assert feed("", "delete", "KEY", "--tenant", "acme").code == 0
    assert (feed("", "list", "--tenant", "acme", "--json").json["secrets"], feed("", "get", "KEY").code) == ([], 0)
    assert feed("", "list", "--tenant", "").code == 2


def test_a_row_of_the_record_that_was_touched_is_told(feed: Feed, cli: Cli, folder: Path) -> None:
    for number in range(3):
        feed(f"{VALUE} {number}", "set", "KEY")
    whole = feed("", "audit", "--verify")
    assert (whole.code, whole.out.splitlines()[0]) == (
        0, "3 rows, none of them changed, removed or inserted; the last is",
    )  # fmt: skip
    noted = whole.out.splitlines()[1]
    assert feed("", "audit", "--verify", "--noted", noted).code == 0
    assert feed("", "audit", "--verify", "--noted", "3").code == feed("", "audit", "KEY", "--verify").code == 2

    with closing(sqlite3.connect(folder / "flow.db")) as file:
        file.execute("DROP TRIGGER audit_stays")
        file.execute("DELETE FROM audit WHERE seq = 3")
        file.commit()
    assert feed("", "audit", "--verify").code == 0
    ran = feed("", "audit", "--verify", "--noted", noted)
    assert (ran.code, ran.out) == (1, "row 3 was removed, with all behind it: row 3 was noted\n")
    with closing(sqlite3.connect(folder / "flow.db")) as file:
        file.execute("DROP TRIGGER audit_is_final")
        file.execute("UPDATE audit SET principal = 'eve' WHERE seq = 1")
        file.commit()
    ran = feed("", "audit", "--verify", "--json")
    assert (ran.code, ran.json["problem"]) == (1, "row 1 was changed (set 'KEY' by 'eve')")


def test_a_rotation_says_what_it_did(feed: Feed, cli: Cli, folder: Path) -> None:
    feed(VALUE, "set", "KEY")
    feed(VALUE, "set", "KEY")
    ran = cli("secrets", "rotate", *DB)
    new = (folder / "flow.db.keys").read_text().splitlines()[2].split()[0]
    assert ran.out == f"2 versions are now under the new master key {new}, and none under another\n"
    lines = (folder / "flow.db.keys").read_text().splitlines()
    (folder / "flow.db.keys").write_text("\n".join([*lines[:2], lines[3]]))
    ran = cli("secrets", "rotate", *DB)
    assert ran.code == 1
    assert "[E_MASTER_KEY_UNKNOWN]" in ran.err
    assert "2 are not" in ran.out
    assert "[E_MASTER_KEY_UNKNOWN]" in cli("secrets", "get", "KEY", "--reveal", *DB).err


def test_a_file_that_is_not_there_is_made_by_the_first_secret_only(cli: Cli, feed: Feed, folder: Path) -> None:
    ran = cli("secrets", "list", *DB)
    assert (ran.code, "there is no file flow.db" in ran.err) == (2, True)
    assert not (folder / "flow.db").exists()
    assert feed(VALUE, "set", "KEY").code == 0


def test_a_key_file_that_others_can_read_is_refused(cli: Cli, feed: Feed, folder: Path) -> None:
    feed(VALUE, "set", "KEY")
    (folder / "flow.db.keys").chmod(0o644)
    ran = feed(VALUE, "set", "KEY")
    assert ran.code == 1
    assert "has mode 0644, so others can read the master keys: chmod 600" in ran.err


@pytest.mark.parametrize(("again", "code"), [(VALUE, 0), ("something else", 2)])
def test_a_value_is_typed_twice_where_somebody_sits(folder: Path, again: str, code: int) -> None:
    master, slave = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "flowkit", "secrets", "set", "KEY", *DB],
        cwd=folder, env=environment(), stdin=slave, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        start_new_session=True,
    )  # fmt: skip
    os.close(slave)
    assert process.stderr is not None
    try:
        for prompt, typed in ((b"value of KEY: ", VALUE), (b"again: ", again)):
            assert process.stderr.read(len(prompt)) == prompt
            os.write(master, f"{typed}\n".encode())
            assert process.stderr.read(1) == b"\n"
        out, err = process.communicate(timeout=30)
    finally:
        process.kill()
        process.wait()
        os.close(master)
    assert process.returncode == code, err
    assert VALUE.encode() not in out + err
    assert (b"the two differ; nothing was stored" in err) == (code == 2)


def test_the_doctor_says_whether_the_secrets_open(cli: Cli, feed: Feed, folder: Path) -> None:
    def said() -> str:
        return next((line for line in cli("doctor", *DB).out.splitlines() if "secrets" in line), "")

    cli("run", "hello.json", "--handlers", "app", "-p", "name=Ada", *DB)
    assert said() == ""
    feed(VALUE, "set", "KEY")
    keys = folder / "flow.db.keys"
    first = keys.read_text()
    assert said().startswith("ok    secrets: 1 version of a secret, under the master key k")
    keys.write_text(first.replace("#", f"kk {'A' * 43}=\n#", 1))
    assert said().startswith("warn  secrets: 1 version of a secret, some under older master keys")
    keys.write_text(f"kk {'A' * 43}=\n")
    assert said().startswith("FAIL  secrets: 1 version of a secret, some under k")
    keys.unlink()
    assert said().startswith("FAIL  secrets: 1 version of a secret, and: there is no file of master keys")
    assert not keys.exists()


def test_serving_a_file_and_half_of_tls_are_refused(cli: Cli) -> None:
    ran = cli("secrets", "serve", *DB)
    assert (ran.code, "there is nothing to serve" in ran.err) == (2, True)
    ran = cli("secrets", "serve", "--db", "mongodb://127.0.0.1:1/x", "--tls-cert", "a.crt")
    assert (ran.code, "TLS needs both --tls-cert and --tls-key" in ran.err) == (2, True)
    ran = cli("secrets", "serve", "--db", "mongodb://127.0.0.1:1/x")
    assert (ran.code, "there is no master key" in ran.err) == (1, True)


def test_encryption_is_an_extra_and_what_is_missing_is_told(folder: Path) -> None:
    script = "import sys; sys.modules['cryptography'] = None; from flowkit.cli import main; main(sys.argv[1:])"
    done = subprocess.run(
        [sys.executable, "-c", script, "secrets", "list", *DB], cwd=folder, env=environment(), capture_output=True,
        text=True, check=False,
    )  # fmt: skip
    assert "cryptography is not installed: pip install 'flowkit-engine[secrets]'" in done.stderr


DIES_MIDWAY = """
import os, signal, sys
from flowkit.cli import main
from flowkit.secrets.cabinet import Cabinet

whole, left = Cabinet.rewrap, 20

async def rewrap(self, secret):
    global left
    if left == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    left -= 1
    return await whole(self, secret)

Cabinet.rewrap = rewrap
main(sys.argv[1:])
"""


async def test_a_rotation_that_is_killed_loses_nothing_and_is_gone_on_with(folder: Path) -> None:
    values = {f"K{n}": f"value-number-{n}" for n in range(60)}
    async with flowkit.Client(db=folder / "flow.db") as client:
        for name, value in values.items():
            await client.secrets.set(name, value)

    def keys() -> dict[str, int]:
        with closing(sqlite3.connect(folder / "flow.db")) as connection:
            return dict(connection.execute("SELECT key_id, count(*) FROM secrets GROUP BY key_id").fetchall())

    words = [sys.executable, "-c", DIES_MIDWAY, "secrets", "rotate", *DB]
    died = subprocess.run(words, cwd=folder, env=environment(), capture_output=True, timeout=60, check=False)  # noqa: ASYNC221
    between = keys()
    assert (died.returncode, sorted(between.values())) == (-signal.SIGKILL, [20, 40]), died.stderr

    async with flowkit.Client(db=folder / "flow.db") as client:
        assert [await client.secrets.reveal(name) for name in values] == list(values.values())
        done = await client.secrets.rotate()
        left = next(number for key, number in between.items() if key != done.key_id)
        assert (done.added, done.rewrapped, done.failed) == (False, left, ())
        assert keys() == {done.key_id: len(values)}
        assert [await client.secrets.reveal(name) for name in values] == list(values.values())


@pytest.mark.mongo
async def test_a_manager_of_its_own_serves_workers_until_it_is_told_to_stop(
    begin: Begin, mongo_url: str, mongo_database: Any, folder: Path
) -> None:
    db = mongo_url.replace("/?", f"/{mongo_database.name}?")
    master, ticket = (base64.b64encode(os.urandom(32)).decode() for _ in range(2))
    settings = {"FLOWKIT_MASTER_KEYS": f"m1={master}", "FLOWKIT_TICKET_KEYS": f"t1={ticket}"}
    manager = begin("secrets", "serve", "--db", db, "--listen", "127.0.0.1:0", **settings)
    address = manager.heard("secret manager at 127.0.0.1:").partition("secret manager at ")[2].partition(",")[0]

    def set_it() -> subprocess.CompletedProcess[str]:
        words = [sys.executable, "-m", "flowkit", "secrets", "set", "KEY", "--db", db]
        return subprocess.run(
            words, input=VALUE, cwd=folder, env=environment(**settings), capture_output=True, text=True, check=False,
            timeout=60,
        )  # fmt: skip

    done = await asyncio.to_thread(set_it)
    assert (done.returncode, done.stdout) == (0, "KEY@1\n"), done.stderr

    use = SecretUse("default", "task-1", "load", 1, "tok-1", "w1")
    office = TicketOffice({"t1": base64.b64decode(ticket)}, SystemClock())
    assert await SecretClient(address).values_for(use, office.issue(use, ["KEY"])) == {"KEY": VALUE}
    manager.signal(signal.SIGTERM)
    ran = await asyncio.to_thread(manager.finish)
    assert (ran.code, "stopped" in ran.err) == (0, True)
    assert VALUE not in ran.err + ran.out
