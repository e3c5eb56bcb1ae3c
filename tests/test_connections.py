"""What the settings say about the roads to Kafka and MongoDB, and what of it is never shown."""

from __future__ import annotations

import base64
import ssl
from pathlib import Path
from typing import Any

import pytest

from flowkit import CoordinatorConfig, WorkerConfig
from flowkit.adapters.kafka_security import hosts_of, is_loopback
from flowkit.connections import kafka_security, message_seals, mongo_security
from flowkit.errors import ConfigError

KEY = base64.b64encode(b"canary-key" * 4).decode()
LOGIN = {"kafka_security_protocol": "SASL_SSL", "kafka_user": "ada", "kafka_password": "canary-1"}


def config(**given: Any) -> CoordinatorConfig:
    return CoordinatorConfig(**given)


def test_without_settings_nothing_is_encrypted_signed_or_asked() -> None:
    assert kafka_security(config()).options() == {}
    assert mongo_security(config()).options() == {}
    assert message_seals(config()) is None


def test_passwords_and_keys_come_from_the_environment_and_from_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "password").write_text("canary-2\n")
    (tmp_path / "keys").write_text(f"# the pools\n\nplain/2 = {KEY}\nfine/1={KEY}\n")
    monkeypatch.setenv("FLOWKIT_KAFKA_PASSWORD_FILE", str(tmp_path / "password"))
    monkeypatch.setenv("FLOWKIT_KAFKA_USER", "ada")
    monkeypatch.setenv("FLOWKIT_KAFKA_SECURITY_PROTOCOL", "SASL_SSL")
    monkeypatch.setenv("FLOWKIT_MESSAGE_KEYS", f"coordinator/1={KEY},plain/1={KEY}")
    monkeypatch.setenv("FLOWKIT_MESSAGE_KEYS_FILE", str(tmp_path / "keys"))
    monkeypatch.setenv("FLOWKIT_MESSAGE_SIGNING", "sign")
    cfg = config()

    options = kafka_security(cfg).options()
    assert (options["sasl_mechanism"], options["sasl_plain_username"]) == ("SCRAM-SHA-512", "ada")
    assert options["sasl_plain_password"] == "canary-2"
    seals = message_seals(cfg)
    assert seals is not None
    assert seals.ring.ids == ("coordinator/1", "plain/1", "plain/2", "fine/1")
    assert (seals.pool, seals.require) == ("coordinator", False)


def test_names_of_brokers_are_checked_unless_somebody_says_otherwise() -> None:
    context = kafka_security(config(**LOGIN)).options()["ssl_context"]
    assert context.check_hostname
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.minimum_version >= ssl.TLSVersion.TLSv1_2
    other = kafka_security(config(**LOGIN, kafka_check_hostname=False)).options()["ssl_context"]
    assert not other.check_hostname
    assert other.verify_mode is ssl.CERT_REQUIRED, "the certificate itself is checked all the same"


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"kafka_security_protocol": "SASLSSL"}, r"one of PLAINTEXT, .*did you mean 'SASL_SSL'"),
        ({**LOGIN, "kafka_sasl_mechanism": "SCRAM-SHA-521"}, r"did you mean 'SCRAM-SHA-512'"),
        ({"kafka_security_protocol": "SASL_SSL"}, r"needs kafka_user, and kafka_password"),
        ({"kafka_password": "canary-1"}, r"nobody would ask for it; set SASL_SSL"),
        ({"kafka_ca_file": "ca.pem"}, r"set SSL or SASL_SSL"),
        ({"kafka_security_protocol": "SSL", "kafka_key_file": "k.pem"}, r"give kafka_cert_file too"),
        ({**LOGIN, "kafka_password_file": "x"}, r"both kafka_password and kafka_password_file"),
        ({**LOGIN, "kafka_password": None, "kafka_password_file": "/nowhere/x"}, r"/nowhere/x cannot be read: No such"),
        ({**LOGIN, "kafka_ca_file": "/nowhere/ca.pem"}, r"kafka_ca_file /nowhere/ca\.pem: No such file"),
        ({**LOGIN, "kafka_ca_file": __file__}, r"is to hold certificates in PEM"),
        ({**LOGIN, "kafka_cert_file": __file__}, r"a certificate and its key in PEM"),
        ({"mongo_ca_file": "ca.pem"}, r"mongo_tls is off"),
        ({"mongo_user": "ada"}, r"come together"),
        ({"message_signing": "yes"}, r"'sign' or 'require', not 'yes'"),
        ({"message_keys": {"plain/1": "canary-1"}}, r"plain/1 is not base64"),
        ({"message_keys": {"plain": KEY}}, r"POOL/NAME"),
    ],
)
def test_settings_that_contradict_one_another_are_refused_with_what_to_do(given: dict[str, Any], words: str) -> None:
    cfg = config(**given)
    with pytest.raises(ConfigError, match=words) as raised:
        kafka_security(cfg).options()
        mongo_security(cfg).options()
        message_seals(cfg)
    assert "canary" not in str(raised.value)


def test_a_key_with_a_passphrase_is_refused_and_nobody_is_asked_for_it(tmp_path: Path) -> None:
    pytest.importorskip("cryptography")
    from cryptography.hazmat.primitives.serialization import (
        BestAvailableEncryption,
        Encoding,
        PrivateFormat,
        load_pem_private_key,
    )

    from deploy.local.certificates import Authority

    made = Authority(tmp_path).issue("worker")
    key = load_pem_private_key(made.key.read_bytes(), None)
    made.key.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"canary")))
    cfg = config(**LOGIN, kafka_cert_file=str(made.cert), kafka_key_file=str(made.key))
    with pytest.raises(ConfigError, match="the key has a passphrase"):
        kafka_security(cfg).options()


def test_a_password_does_not_travel_to_another_machine_in_the_open() -> None:
    login = {**LOGIN, "kafka_security_protocol": "SASL_PLAINTEXT"}
    assert kafka_security(config(**login, kafka_bootstrap="127.0.0.1:9092,localhost:9093,[::1]:9094")).sasl
    with pytest.raises(ConfigError, match=r"to kafka-1\.example in the open: set kafka_security_protocol to SASL_SSL"):
        kafka_security(config(**login, kafka_bootstrap="localhost:9092,kafka-1.example:9092"))
    assert kafka_security(config(**login, kafka_bootstrap="kafka:9092", kafka_sasl_without_tls=True)).sasl
    assert kafka_security(config(**LOGIN, kafka_bootstrap="kafka:9092")).tls


def test_which_hosts_are_this_machine() -> None:
    assert hosts_of("a:1, 127.0.0.1:2,[::1]:3,bare") == ["a", "127.0.0.1", "::1", "bare"]
    assert [is_loopback(host) for host in ("localhost", "127.0.0.7", "::1", "10.0.0.1", "kafka", "0.0.0.0")] == [
        True, True, True, False, False, False,
    ]  # fmt: skip


def test_settings_show_no_password_and_no_key() -> None:
    secret = {
        "kafka_user": "ada",
        "kafka_password": "canary-1",
        "mongo_password": "canary-2",
        "mongo_url": "mongodb://ada:canary-3@db/flowkit",
        "message_keys": {"plain/1": "canary-4"},
    }
    for cfg in (CoordinatorConfig(**secret), WorkerConfig(**secret), WorkerConfig.load(overrides=secret)):
        shown = repr(cfg) + str(cfg)
        assert "canary" not in shown
        assert "kafka_user='ada'" in shown
        assert "mongo_url='mongodb://ada:***@db/flowkit'" in shown
        assert "kafka_password=<hidden>" in shown
        assert "message_keys=<1 of them>" in shown
    assert "canary" not in repr(kafka_security(config(**LOGIN)))
    assert "canary" not in repr(mongo_security(config(mongo_user="ada", mongo_password="canary-2")))


@pytest.mark.parametrize("name", ["kafka_password", "message_keys"])
def test_a_secret_of_the_wrong_type_is_refused_and_not_shown(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match=f"{name} must be .*, not what was given") as raised:
        CoordinatorConfig.load(overrides={name: ["canary"]})
    assert "canary" not in str(raised.value)
    if name == "message_keys":
        monkeypatch.setenv("FLOWKIT_MESSAGE_KEYS", "canary")
        with pytest.raises(ConfigError, match="not what was given") as raised:
            CoordinatorConfig()
        assert "canary" not in str(raised.value)


def test_two_places_for_one_key_are_one_too_many(tmp_path: Path) -> None:
    (tmp_path / "keys").write_text(f"plain/1={KEY}\n")
    with pytest.raises(ConfigError, match=r"both have plain/1"):
        message_seals(config(message_keys={"plain/1": KEY}, message_keys_file=str(tmp_path / "keys")))
    (tmp_path / "keys").write_text("plain/1\n")
    with pytest.raises(ConfigError, match=r"line 1: a line is POOL/NAME=BASE64"):
        message_seals(config(message_keys_file=str(tmp_path / "keys")))
    (tmp_path / "keys").write_text(f"plain/1={KEY}\nplain/1={KEY}\n")
    with pytest.raises(ConfigError, match=r"line 2: plain/1 is there twice"):
        message_seals(config(message_keys_file=str(tmp_path / "keys")))
