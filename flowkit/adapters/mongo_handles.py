"""What a user may hand over as "the database": a PyMongo AsyncDatabase, a Motor database, or a URL."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from flowkit.adapters import missing
from flowkit.errors import ConfigError

try:
    import pymongo
    from bson.codec_options import CodecOptions
    from pymongo.errors import ConfigurationError, InvalidURI, PyMongoError
    from pymongo.read_concern import ReadConcern
    from pymongo.read_preferences import ReadPreference
    from pymongo.uri_parser import parse_uri
    from pymongo.write_concern import WriteConcern
except ImportError as error:
    raise missing("pymongo", "mongo") from error

DATABASE = "flowkit"


@dataclass(slots=True, eq=False)
class Handle:
    """A database whose collections decide: majority and journaled writes, majority reads from the primary."""

    # PyMongo's and Motor's databases share what is used of them, not a type.
    database: Any
    address: str
    driver: str
    encrypted: bool = False
    servers: tuple[str, ...] = ()
    own_client: Any = None
    _collections: dict[str, Any] = field(default_factory=dict)

    def collection(self, name: str) -> Any:
        if name not in self._collections:
            self._collections[name] = self.database.get_collection(
                name,
                codec_options=CodecOptions(),  # whatever the user's handle makes of documents
                write_concern=WriteConcern(w="majority", j=True),
                read_concern=ReadConcern("majority"),
                read_preference=ReadPreference.PRIMARY,
            )
        return self._collections[name]

    async def close(self) -> None:
        """Close the client, if it was made here."""
        if self.own_client is not None:
            await self.own_client.close()


def check(given: object) -> None:
    """Raise ConfigError for what cannot be a database, and say what to hand over instead."""
    if isinstance(given, str):
        _parse(given)
        return

    kind = type(given)
    module, name = kind.__module__, kind.__name__
    if (module.startswith("pymongo.asynchronous") and name == "AsyncDatabase") or (
        module.startswith("motor.motor_asyncio") and name == "AsyncIOMotorDatabase"
    ):
        return

    if name in ("AsyncMongoClient", "AsyncIOMotorClient"):
        raise ConfigError(f"hand over a database, not the client: client[{DATABASE!r}] instead of client")
    if module.startswith("pymongo.synchronous"):
        raise ConfigError(f"a synchronous {name} blocks the event loop: make the client with pymongo.AsyncMongoClient")
    raise ConfigError(
        f"{module}.{name} is no MongoDB database: hand over AsyncMongoClient(...)[{DATABASE!r}] or a mongodb:// URL"
    )


def open_handle(given: Any, options: Mapping[str, Any] | None = None) -> Handle:
    """The handle for what `check` let pass. Call it on the loop that will use it. `options` are for the client that a
    URL is given to. Raises `ConfigError` for files that cannot be used."""
    if not isinstance(given, str):
        motor = type(given).__module__.startswith("motor")
        return _handle(given.client, given, "motor" if motor else "pymongo")

    parsed = _parse(given)
    try:
        client: Any = pymongo.AsyncMongoClient(given, appname="flowkit", **dict(options or {}))
    except (ConfigurationError, InvalidURI, OSError, ValueError) as error:
        raise ConfigError(f"the settings for MongoDB: {error}") from error
    name = parsed["database"] or DATABASE
    return _handle(client, client[name], "pymongo", own_client=client)


def _handle(client: Any, database: Any, driver: str, *, own_client: Any = None) -> Handle:
    inner = client.delegate if driver == "motor" else client
    servers = tuple(sorted(f"{host}:{port}" for host, port in client.topology_description.server_descriptions()))
    encrypted = getattr(inner.options.pool_options, "_ssl_context", None) is not None
    # Never the URL: it may hold a password.
    address = f"mongodb://{','.join(servers) or '?'}/{database.name}"
    return Handle(database, address, driver, encrypted, servers, own_client)


def _parse(url: str) -> dict[str, Any]:
    if not url.startswith(("mongodb://", "mongodb+srv://")):
        raise ConfigError("a MongoDB URL begins with mongodb:// or mongodb+srv://, as in mongodb://127.0.0.1/flowkit")
    if url.startswith("mongodb+srv://"):  # parsing would ask the name server, and block
        path = url.partition("://")[2].partition("/")[2]
        return {"database": path.partition("?")[0] or None}
    try:
        return dict(parse_uri(url, warn=False))
    except (PyMongoError, ValueError) as error:
        raise ConfigError(f"the MongoDB URL cannot be read: {error}") from error
