"""The secret manager: its verbs, who may do what, and what is on record afterwards."""

from __future__ import annotations

import stat

from tests.services.stand import KEY, Service, Site

VALUE = "a value of 24 characters"


def manager(site: Site, **env: str) -> Service:
    return site.start("secret-manager", **env)


def test_a_secret_is_set_listed_given_to_whom_it_may_and_deleted(five: Site) -> None:
    check_verbs(five.services["secret-manager"])


def check_verbs(secrets: Service) -> None:
    runner = secrets.tokens["node-runner"]

    stored = secrets.good("POST", "/set", {"key": "OTHER", "value": VALUE})
    keys = secrets.good("GET", "/keys")
    got = secrets.good("GET", "/get/OTHER", token=runner)
    gone = secrets.good("DELETE", "/delete/OTHER")

    assert stored == {"message": "stored", "key": "OTHER", "version": 1}
    assert keys == {"keys": ["API_KEY", "OTHER"]}
    assert got == {"key": "OTHER", "value": VALUE}
    assert gone == {"message": "deleted", "key": "OTHER"}
    assert (secrets.ask("GET", "/get/OTHER", token=runner).status, secrets.ask("DELETE", "/delete/OTHER").status) == (
        404, 404
    )  # fmt: skip


def test_values_are_given_to_nobody_unless_the_operator_says_so_and_each_question_is_on_record(site: Site) -> None:
    secrets = manager(site)
    secrets.good("POST", "/set", {"key": "API_KEY", "value": KEY})

    asked = [secrets.ask("GET", "/get/API_KEY", token=token) for token in secrets.tokens.values()]
    secrets.close()
    record = site.run("-m", "flowkit", "secrets", "audit", "--db", "flowkit.db", "--json").stdout

    assert [(answer.status, answer.code) for answer in asked] == [(403, "E_SECRET_REFUSED")] * 3
    assert "ALLOW_GET=node-runner" in asked[1].text
    assert KEY not in "".join(answer.text for answer in asked) + record
    assert record.count('"E_SECRET_REFUSED"') == 3
    assert "service:node-runner" in record


def test_a_secret_that_is_for_some_nodes_is_given_for_those_alone(site: Site) -> None:
    words = ("-m", "flowkit", "secrets", "set", "ONLY", "--node", "upload*", "--db", "flowkit.db")
    made = site.run(*words, said="for uploads alone")
    assert made.returncode == 0, made.stderr
    secrets = manager(site, ALLOW_GET="node-runner")
    runner = secrets.tokens["node-runner"]

    refused = [secrets.ask("GET", f"/get/ONLY{query}", token=runner) for query in ("", "?node=download")]
    given = secrets.good("GET", "/get/ONLY?node=upload-2", token=runner)

    assert [(one.status, one.code) for one in refused] == [(403, "E_SECRET_REFUSED")] * 2
    assert given["value"] == "for uploads alone"


def test_each_token_sees_the_secrets_of_its_own_tenant(site: Site) -> None:
    path = site.folder / "flowkit-secret-manager.token"
    path.touch(mode=0o600)
    path.write_text(f"operator one {'a' * 32}\noperator two {'b' * 32}\nreader two {'c' * 32}\nreader one {'d' * 32}\n")
    secrets = manager(site, ALLOW_GET="reader")

    secrets.good("POST", "/set", {"key": "MINE", "value": VALUE}, token="a" * 32)

    assert secrets.good("GET", "/keys", token="a" * 32) == {"keys": ["MINE"]}
    assert secrets.good("GET", "/keys", token="b" * 32) == {"keys": []}
    assert secrets.ask("DELETE", "/delete/MINE", token="b" * 32).status == 404
    assert secrets.ask("GET", "/get/MINE", token="c" * 32).status == 404
    assert secrets.good("GET", "/get/MINE", token="d" * 32)["value"] == VALUE


def test_only_the_operator_changes_or_lists(five: Site) -> None:
    secrets = five.services["secret-manager"]
    token = secrets.tokens["npu"]

    answers = [
        secrets.ask("POST", "/set", {"key": "X", "value": VALUE}, token=token),
        secrets.ask("DELETE", "/delete/API_KEY", token=token),
        secrets.ask("GET", "/keys", token=token),
    ]

    assert [(one.status, one.code) for one in answers] == [(403, "E_FORBIDDEN")] * 3
    assert secrets.good("GET", "/keys")["keys"] == ["API_KEY"]


def test_what_is_wrong_with_a_secret_is_said_without_its_value(five: Site) -> None:
    secrets = five.services["secret-manager"]

    name = secrets.ask("POST", "/set", {"key": "no name", "value": VALUE})
    empty = secrets.ask("POST", "/set", {"key": "EMPTY", "value": ""})
    number = secrets.ask("POST", "/set", {"key": "NUMBER", "value": {"hidden": VALUE}})
    long = secrets.ask("POST", "/set", {"key": "LONG", "value": VALUE * 4000})

    assert [one.status for one in (name, empty, number, long)] == [422] * 4
    assert [one.code for one in (name, empty)] == ["E_SECRET_NAME", "E_SECRET_VALUE"]
    assert not [one for one in (name, number, long) if VALUE in one.text]


def test_tokens_are_made_once_for_the_owner_alone(site: Site) -> None:
    secrets = manager(site)
    path = site.folder / "flowkit-secret-manager.token"
    first = dict(secrets.tokens)

    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert secrets.tokens.keys() == {"operator", "node-runner", "npu"}
    secrets.close()
    assert manager(site).tokens == first
