"""Two functions, one graph, no server: the first five minutes."""

from __future__ import annotations

import flowkit


def greet(name: str) -> dict[str, str]:
    return {"text": f"hello {name}"}


def shout(text: str) -> str:
    return text.upper() + "!"


GRAPH = {"nodes": [{"node_id": "hi", "type": "greet"}, {"node_id": "loud", "type": "shout", "depends_on": ["hi"]}]}

if __name__ == "__main__":
    print(flowkit.run(GRAPH, handlers=[greet, shout], params={"name": "Ada"}).output)  # HELLO ADA!
