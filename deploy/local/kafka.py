"""The real Apache Kafka: one KRaft node, its jars from Maven Central."""

from __future__ import annotations

import base64
import hashlib
import os
import shutil
import socket
import struct
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from deploy.local.certificates import Authority
from deploy.local.server import CACHE, LocalServer, free_port, installing, need, run

POM = Path(__file__).with_name("pom.xml")

# Small on purpose: a broker for one machine's tests, beside everything else that runs there.
JVM = ["-Xms128m", "-Xmx384m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-XX:-UsePerfData"]

# In a folder of its own: a new name beside the jars could change the order in which the JVM finds those.
ARCHIVE = "classes.jsa"
ARCHIVING_SEC = 60.0

# After a crash the controller waits for the session of the broker's former life to end: 9 s by default.
PROPERTIES = """\
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{controller_port}
controller.listener.names=CONTROLLER
log.dirs={log_dir}
num.partitions=4
auto.create.topics.enable=false
delete.topic.enable=true
offsets.topic.num.partitions=1
offsets.topic.replication.factor=1
transaction.state.log.num.partitions=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
broker.session.timeout.ms=3000
broker.heartbeat.interval.ms=500
group.initial.rebalance.delay.ms=0
group.min.session.timeout.ms=1000
num.network.threads=2
num.io.threads=2
log.cleaner.dedupe.buffer.size=2000000
log.index.size.max.bytes=1048576
"""

OPEN = """\
listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller_port}
advertised.listeners=PLAINTEXT://127.0.0.1:{port}
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
"""

# The open listener stays, for whoever looks after the server: StandardAuthorizer takes it for nobody else.
GUARDED = """\
listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller_port},SECURE://127.0.0.1:{secure},\
MUTUAL://127.0.0.1:{mutual},STALE://127.0.0.1:{stale}
advertised.listeners=PLAINTEXT://127.0.0.1:{port},SECURE://127.0.0.1:{secure},MUTUAL://127.0.0.1:{mutual},\
STALE://127.0.0.1:{stale}
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,SECURE:SASL_SSL,MUTUAL:SSL,STALE:SSL
inter.broker.listener.name=PLAINTEXT
ssl.keystore.type=PEM
ssl.keystore.location={cert}
ssl.truststore.type=PEM
ssl.truststore.location={ca}
listener.name.mutual.ssl.client.auth=required
listener.name.stale.ssl.keystore.type=PEM
listener.name.stale.ssl.keystore.location={stale_cert}
listener.name.stale.ssl.truststore.type=PEM
listener.name.stale.ssl.truststore.location={ca}
listener.name.secure.sasl.enabled.mechanisms=SCRAM-SHA-512,SCRAM-SHA-256,PLAIN
listener.name.secure.scram-sha-512.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required;
listener.name.secure.scram-sha-256.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required;
listener.name.secure.plain.sasl.jaas.config=org.apache.kafka.common.security.plain.PlainLoginModule required {plain};
ssl.principal.mapping.rules=RULE:^CN=(.*?)$/$1/
"""
ACLS = """\
authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer
super.users=User:ANONYMOUS
allow.everyone.if.no.acl.found=false
"""

LOGGING = """\
status=error
appender.console.type=Console
appender.console.name=console
appender.console.layout.type=PatternLayout
appender.console.layout.pattern=%d{ISO8601} %p %m (%c)%n
rootLogger.level=warn
rootLogger.appenderRef.console.ref=console
"""


def install() -> Path:
    """The folder with Kafka's jars, downloaded once. Raises ServiceUnavailable."""
    target = CACHE / f"kafka-{hashlib.sha256(POM.read_bytes()).hexdigest()[:12]}"
    if target.exists():
        return target

    maven = need(
        "mvn",
        "install Maven (Debian: apt-get install maven), or set FLOWKIT_TEST_KAFKA to a broker's address",
    )
    with installing(target) as folder:
        if folder is not None:
            goal = ["dependency:copy-dependencies", "-DincludeScope=runtime", f"-DoutputDirectory={folder}"]
            run([maven, "-q", "-B", "-f", str(POM), *goal], "fetching Kafka's jars with Maven")
    return target


def find_java() -> str:
    """The `java` that runs the broker. Raises ServiceUnavailable."""
    return need("java", "install Java 17 or later (Debian: apt-get install default-jre-headless)")


def archive_classes() -> Path:
    """Kafka's classes as the JVM has them once they are loaded and verified, made once by a broker that is started for
    it: with them one starts with two thirds of the CPU. Where this JVM makes none, the folder is empty, and brokers
    start without. Raises ServiceUnavailable."""
    archive = _archive(find_java(), install())
    with installing(archive.parent) as folder:
        if folder is not None:
            server = KafkaServer()
            server._classes = f"-XX:ArchiveClassesAtExit={folder / ARCHIVE}"
            with server:
                server.stop(ARCHIVING_SEC)
    return archive


def _archive(java: str, jars: Path) -> Path:
    """It is of use to the JVM that made it, with the jars that this one had, and to no other."""
    real = Path(java).resolve()
    made_by = f"{real} {real.stat().st_mtime_ns} {real.stat().st_size} {jars}"
    return CACHE / f"kafka-classes-{hashlib.sha256(made_by.encode()).hexdigest()[:12]}" / ARCHIVE


@dataclass(frozen=True)
class Guard:
    """What keeps strangers out: certificates of an authority, users with passwords (SCRAM-SHA-512 and -256, and PLAIN),
    and, with `acls`, no rights for anybody but those who come by the open listener."""

    authority: Authority
    users: Mapping[str, str] = field(default_factory=dict, repr=False)
    acls: bool = False


class KafkaServer(LocalServer):
    """One Kafka broker on 127.0.0.1, its own controller. With a `guard` it also listens at `secure` (TLS and a
    password), `mutual` (TLS and a client's certificate) and `stale` (TLS with a certificate that has expired)."""

    name = "kafka"

    def __init__(self, *, port: int | None = None, data_dir: Path | None = None, ready_timeout: float = 150.0,
                 guard: Guard | None = None) -> None:  # fmt: skip
        super().__init__(data_dir=data_dir, ready_timeout=ready_timeout)
        self.port = port or free_port()
        self._controller_port = free_port()
        self.address = f"127.0.0.1:{self.port}"
        self._classes = ""
        self._guard = guard
        self._guarded = {name: free_port() for name in ("secure", "mutual", "stale")} if guard else {}
        self.secure, self.mutual, self.stale = (
            f"127.0.0.1:{self._guarded[name]}" if guard else "" for name in ("secure", "mutual", "stale")
        )

    def _command(self) -> Sequence[str]:
        java = find_java()
        jars = install()
        log_dir = self.data_dir / "log"
        properties = self.data_dir / "server.properties"
        logging = self.data_dir / "log4j2.properties"

        properties.write_text(self._properties())
        logging.write_text(LOGGING)
        if not self._classes and (archive := _archive(java, jars)).exists():
            self._classes = f"-XX:SharedArchiveFile={archive}"
        options = [*JVM, self._classes] if self._classes else JVM
        command = [java, *options, f"-Dlog4j2.configurationFile={logging}", "-cp", f"{jars}/*"]

        if not (log_dir / "meta.properties").exists():
            # A start that broke off within the formatting leaves a folder that cannot be formatted again.
            shutil.rmtree(log_dir, ignore_errors=True)
            storage = ["kafka.tools.StorageTool", "format", "-t", _cluster_id(), "-c", str(properties)]
            run([*command, *storage, *self._users()], "formatting Kafka's storage")

        return [*command, "kafka.Kafka", str(properties)]

    def _properties(self) -> str:
        ports = {"port": self.port, "controller_port": self._controller_port}
        return PROPERTIES.format(**ports, log_dir=self.data_dir / "log") + self._listeners(ports)

    def _listeners(self, ports: Mapping[str, int]) -> str:
        guard = self._guard
        if guard is None:
            return OPEN.format(**ports)
        cert = guard.authority.issue("kafka", hosts=["127.0.0.1"])
        stale = guard.authority.issue("kafka-stale", expired=True)
        said = GUARDED.format(
            **ports, **self._guarded, cert=cert.both, stale_cert=stale.both, ca=guard.authority.ca,
            plain=" ".join(f'user_{name}="{password}"' for name, password in guard.users.items()),
        )  # fmt: skip
        return said + (ACLS if guard.acls else "")

    def _users(self) -> list[str]:
        users = self._guard.users if self._guard is not None else {}
        return [
            word
            for name, password in users.items()
            for mechanism in ("SCRAM-SHA-512", "SCRAM-SHA-256")
            for word in ("--add-scram", f"{mechanism}=[name={name},password={password}]")
        ]

    def _is_ready(self) -> bool:
        # An open port is not enough: the broker answers only once it has its metadata. So ask it something.
        with suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=1) as connection:
            connection.settimeout(1)
            api_versions = struct.pack(">hhih", 18, 0, 1, -1)  # key, version, correlation id, no client id
            connection.sendall(struct.pack(">i", len(api_versions)) + api_versions)
            answer = connection.recv(10)
            return len(answer) == 10 and struct.unpack(">iih", answer)[1:] == (1, 0)
        return False


def _cluster_id() -> str:
    # A leading zero byte gives a leading "A": a "-" there would read as an option.
    return base64.urlsafe_b64encode(b"\0" + os.urandom(15)).decode().rstrip("=")
