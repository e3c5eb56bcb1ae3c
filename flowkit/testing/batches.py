"""What must hold of the batches of a node, whatever happened to those that made and read them."""

from __future__ import annotations

from flowkit.ports import Block
from flowkit.wire.stream import Content, read_body


def judge_blocks(blocks: list[Block]) -> list[str]:
    """No number is left out, attempts only grow, counts are those of the batches, and no id comes twice."""
    found: list[str] = []
    seen: set[str] = set()
    count = attempt = 0
    for place, block in enumerate(blocks, start=1):
        content: Content = read_body(block.body)
        uids = [batch[0] for batch in content.batches]
        count += len(uids)
        if block.seq != place:
            found.append(f"block {place} is missing")
        if block.attempt < attempt:
            found.append(f"block {block.seq} is of attempt {block.attempt}, behind {attempt}")
        if block.count != count:
            found.append(f"block {block.seq} says {block.count} batches, there are {count}")
        if seen.intersection(uids) or len(set(uids)) < len(uids):
            found.append(f"block {block.seq} repeats {seen.intersection(uids)}")
        if content.mark.end is not None and place < len(blocks):
            found.append(f"there are blocks behind the end, {block.seq}")
        seen.update(uids)
        attempt = block.attempt
    return found
