"""Counts, histograms, and labels that stay few."""

from __future__ import annotations

from flowkit import measures as m
from flowkit.metrics.tallies import Few, Spread, Tally


def test_a_tally_counts_by_labels() -> None:
    tally = Tally(m.ATTEMPTS, m.ATTEMPTS.labels)

    tally.add("load", "failed")
    tally.add("load", "failed", by=2)
    tally.add("load", "succeeded")

    assert tally.values == {("load", "failed"): 3, ("load", "succeeded"): 1}


def test_a_spread_puts_what_is_on_an_edge_below_it() -> None:
    spread = Spread(m.STORE_SECONDS)
    edges = m.STORE_SECONDS.buckets

    for seconds in (edges[0], edges[0] + 1e-9, edges[-1], 1e6, -1.0):
        spread.see(seconds, "renew", "false")

    counts, (total,) = spread.values["renew", "false"]
    assert (counts[0], counts[1], counts[-2], counts[-1], sum(counts)) == (2, 1, 1, 1, 5)
    assert total == sum((edges[0], edges[0] + 1e-9, edges[-1], 1e6))


def test_a_label_has_so_many_values_and_the_rest_is_other() -> None:
    capped: list[int] = []
    few = Few(2, lambda: capped.append(1))

    assert [few.of(value) for value in ("a", "b", "c", "a", "d")] == ["a", "b", "other", "a", "other"]
    assert len(capped) == 2


def test_names_follow_the_conventions() -> None:
    for one in m.MEASURES:
        assert one.name.startswith("flowkit_"), one
        assert one.name.endswith("_total") == (one.kind == "counter"), one
        assert one.name.endswith("_seconds") or one.kind != "histogram", one
        assert bool(one.buckets) == (one.kind == "histogram"), one
        assert list(one.buckets) == sorted(set(one.buckets)), one
        assert not {"task", "task_id", "node", "worker", "tenant"} & set(one.labels), one
    assert len({one.name for one in m.MEASURES}) == len(m.MEASURES) > 30
