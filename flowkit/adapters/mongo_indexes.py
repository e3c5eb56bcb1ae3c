"""Which indexes find the engine's documents in MongoDB."""

from __future__ import annotations

from flowkit.adapters import missing

try:
    from pymongo import ASCENDING, DESCENDING, IndexModel
except ImportError as error:
    raise missing("pymongo", "mongo") from error

INDEXES = {
    "tasks": [
        IndexModel(
            [("partition", ASCENDING), ("wake", ASCENDING), ("_id", ASCENDING)],
            name="due",
            partialFilterExpression={"active": True},
        ),
        IndexModel(
            [("partition", ASCENDING), ("_id", ASCENDING)],
            name="active",
            partialFilterExpression={"active": True},
        ),
        IndexModel([("tenant", ASCENDING), ("created_at", DESCENDING), ("_id", DESCENDING)], name="age"),
        IndexModel(
            [("parent", ASCENDING), ("tenant", ASCENDING), ("created_at", DESCENDING), ("_id", DESCENDING)],
            name="family",
        ),
        IndexModel(
            [("tenant", ASCENDING), ("flow_name", ASCENDING), ("created_at", DESCENDING), ("_id", DESCENDING)],
            name="flow",
            partialFilterExpression={"flow_name": {"$gt": ""}},
        ),
        IndexModel([("labels.k", ASCENDING), ("labels.v", ASCENDING), ("created_at", DESCENDING)], name="labels"),
        IndexModel([("graph", ASCENDING)], name="graph"),
        IndexModel(
            [
                *(("partition", ASCENDING), ("status", ASCENDING), ("parent", ASCENDING)),
                *(("ended_at", ASCENDING), ("_id", ASCENDING)),
            ],
            name="ended",
            partialFilterExpression={"active": False},
        ),
        IndexModel(
            [("partition", ASCENDING), ("remove_at", ASCENDING), ("_id", ASCENDING)],
            name="removable",
            partialFilterExpression={"remove_at": {"$gt": 0}},
        ),
    ],
    # MongoDB removes what is past its time by itself.
    "kept": [IndexModel([("over", ASCENDING)], name="over", expireAfterSeconds=0)],
    "limits": [IndexModel([("partition", ASCENDING), ("_id", ASCENDING)], name="owned")],
    "graphs": [IndexModel([("put_at", ASCENDING)], name="put", partialFilterExpression={"i": 0})],
    "claims": [IndexModel([("ref", ASCENDING)], name="ref")],
    "requests": [
        IndexModel(
            [("partition", ASCENDING), ("task", ASCENDING), ("n", ASCENDING)],
            name="open",
            partialFilterExpression={"applied": False},
        )
    ],
    "flows": [
        IndexModel([("tenant", ASCENDING), ("name", ASCENDING), ("version", DESCENDING)], name="versions"),
        IndexModel([("graph", ASCENDING)], name="graph"),
    ],
    "flow_tags": [IndexModel([("tenant", ASCENDING), ("name", ASCENDING), ("tag", ASCENDING)], name="tags")],
}
