"""Fan-out and fan-in over files: every CSV file is cleaned and summed up by itself, then all sums are merged.

python examples/etl/etl.py [FOLDER]
"""

from __future__ import annotations

import csv
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import flowkit

DATA = Path(__file__).with_name("data")


def clean(path: str) -> dict[str, Any]:
    """The sound rows of a file, and how many were not."""
    with open(path, newline="") as file:
        rows = list(csv.DictReader(file))
    sound = [row for row in map(tidy, rows) if row is not None]
    return {"rows": sound, "rejected": len(rows) - len(sound)}


def tidy(row: dict[str, str]) -> dict[str, Any] | None:
    try:
        sound = {"item": row["item"].strip().lower(), "quantity": int(row["quantity"]), "price": float(row["price"])}
    except ValueError:
        return None
    return sound if sound["quantity"] > 0 else None


def aggregate(rows: list[dict[str, Any]], rejected: int) -> dict[str, Any]:
    """The revenue of one file by item, in cents, so that no sum depends on its order."""
    cents: Counter[str] = Counter()
    for row in rows:
        cents[row["item"]] += round(row["quantity"] * row["price"] * 100)
    return {"cents": dict(cents), "rows": len(rows), "rejected": rejected}


def merge(parts: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """All files together, and which city sold the most."""
    total: Counter[str] = Counter()
    for part in parts.values():
        total.update(part["cents"])
    best = max(parts, key=lambda city: sum(parts[city]["cents"].values()))
    return {
        "cents": dict(total),
        "best": best,
        "rows": sum(part["rows"] for part in parts.values()),
        "rejected": sum(part["rejected"] for part in parts.values()),
    }


def report(cents: dict[str, int], best: str, rows: int, rejected: int, title: str) -> str:
    lines = [title, *(f"{item:8} {amount / 100:9.2f}" for item, amount in sorted(cents.items()))]
    return "\n".join([*lines, f"{rows} rows, {rejected} rejected; most in {best}"])


def graph_of(files: list[Path]) -> dict[str, Any]:
    """Two nodes for each file, which wait for no other file, and two for all of them."""
    cities = {path.stem: str(path) for path in files}
    cleaning = [
        {"node_id": f"clean.{city}", "type": "clean", "inputs": {"path": path}, "timeout_sec": 30}
        for city, path in cities.items()
    ]
    adding = [{"node_id": f"sum.{city}", "type": "aggregate", "depends_on": [f"clean.{city}"]} for city in cities]
    parts = {city: {"$from": f"sum.{city}"} for city in cities}
    merging = {"node_id": "merge", "type": "merge", "inputs": {"parts": parts}}
    reporting = {
        "node_id": "report",
        "type": "report",
        "inputs": {
            "cents": {"$from": "merge.cents"},
            "best": {"$from": "merge.best"},
            "rows": {"$from": "merge.rows"},
            "rejected": {"$from": "merge.rejected"},
            "title": {"$param": "title"},
        },
    }
    return {"name": "etl", "nodes": [*cleaning, *adding, merging, reporting]}


def main(folder: Path) -> None:
    graph = graph_of(sorted(folder.glob("*.csv")))
    result = flowkit.run(graph, handlers=[clean, aggregate, merge, report], params={"title": "Revenue"})
    print(result.output)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else DATA)
