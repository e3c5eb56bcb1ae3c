"""`python -m deploy.local up` runs Kafka and MongoDB until Ctrl-C; `install` only downloads them."""

from __future__ import annotations

import argparse
import sys
from contextlib import ExitStack

from deploy.local import KafkaServer, MongoServer, ServiceUnavailable, kafka, mongo, openbao
from deploy.local.server import stop_on_signals


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m deploy.local", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("install", help="download the servers")
    up = commands.add_parser("up", help="run both in the foreground, with data that end with them")
    up.add_argument("--kafka-port", type=int, help="default: a free one")
    up.add_argument("--mongo-port", type=int, help="default: a free one")
    options = parser.parse_args()

    try:
        if options.command == "install":
            kafka.find_java()
            print(f"mongod {mongo.install()}\nkafka  {kafka.install()}\nbao    {openbao.install()}")
            kafka.archive_classes()
        else:
            _up(options.kafka_port, options.mongo_port)
    except ServiceUnavailable as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def _up(kafka_port: int | None, mongo_port: int | None) -> None:
    stopped = stop_on_signals()
    with ExitStack() as stack:
        broker = stack.enter_context(KafkaServer(port=kafka_port))
        store = stack.enter_context(MongoServer(port=mongo_port))
        address = store.url.replace("/?", "/flowkit?")
        print(f"FLOWKIT_TEST_KAFKA={broker.address}\nFLOWKIT_TEST_MONGO={store.url}")
        print(f"KAFKA_BOOTSTRAP_SERVERS={broker.address}\nMONGO_URL={address}", flush=True)

        while not stopped.wait(1):
            if not (broker.running and store.running):
                raise ServiceUnavailable(f"{'kafka' if store.running else 'mongod'} ended by itself")


if __name__ == "__main__":
    raise SystemExit(main())
