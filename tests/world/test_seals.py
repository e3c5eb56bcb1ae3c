"""A cluster that signs everything, in any weather: nothing honest is refused, and no forgery changes a history."""

from __future__ import annotations

import pytest

from flowkit.core.payload import Payload
from flowkit.core.reports import Succeeded
from flowkit.ports import Record
from flowkit.testing import World
from flowkit.testing.play import RandomPlay
from flowkit.wire.messages import Job, Told, decode_work, encode_facts_batch
from flowkit.wire.seals import HEADER, Seals
from flowkit.wire.topics import Topics
from tests.wire.test_seals import ring

KEYS = {"coordinator": ("coordinator/1", "plain/1", "fine/1"), "worker": ("plain/1",), "api": ("coordinator/1",)}


def seals(kind: str) -> Seals:
    return Seals(ring(*KEYS[kind]), Topics(partitions=4), require=True)


@pytest.mark.parametrize("seed", range(500, 503))
def test_a_signed_cluster_survives_what_others_do_and_refuses_nothing_honest(seed: int) -> None:
    world = World(seed, mode="chaos", patience_sec=300.0, seals=seals)
    usual = world.broker.on_append
    refused: list[bytes] = []
    signed = [0]

    def look(record: Record) -> None:
        usual(record)
        signed[0] += any(name == HEADER for name, _ in record.headers)
        if record.topic == world.topics.dead and b"sign" in dict(record.headers)["reason"]:
            refused.append(dict(record.headers)["reason"])

    world.broker.on_append = look
    report = RandomPlay(world).run()

    assert report.violations == []
    assert signed[0] > 100
    assert refused == []


@pytest.mark.parametrize("seed", range(510, 512))
def test_another_pool_that_answers_every_dispatch_before_its_worker_does_changes_no_history(seed: int) -> None:
    world = World(seed, mode="chaos", patience_sec=300.0, seals=seals)
    evil = Seals(ring("fine/1"), world.topics, require=True)
    usual = world.broker.on_append
    lies = [0]

    def lie(record: Record) -> None:
        usual(record)
        if record.topic != world.topics.work:
            return
        for job in decode_work(record.value).items:
            if isinstance(job, Job):
                told = Told(job.task_id, job.tenant, Succeeded(job.node, job.attempt, job.token, Payload("forged")))
                value = encode_facts_batch("fine/w", "i", 1, [told])
                forged = evil.seal(Record(world.topics.facts, job.partition, value, job.task_id.encode()))
                world.broker._append(forged)
                lies[0] += 1

    world.broker.on_append = lie
    report = RandomPlay(world).run()

    # The checker says of every dead letter that there should be none; of anything else it has nothing to say.
    assert {violation.kind for violation in report.violations} == {"dead_lettered"}
    assert all("'fine', and leased to 'plain/W" in violation.detail for violation in report.violations)
    assert lies[0] > 5
    commits = [commit for history in world.replica.majority.data.commits.values() for commit in history.values()]
    assert commits
    assert not [commit for commit in commits if "forged" in commit.body]
