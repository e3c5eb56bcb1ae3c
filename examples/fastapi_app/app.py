"""FlowKit inside a FastAPI app: one process, one file, three endpoints.

pip install . fastapi uvicorn
uvicorn app:app --app-dir examples/fastapi_app
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any

from fastapi import FastAPI, Header, HTTPException
from pydantic import BaseModel

import flowkit
from flowkit.errors import IdempotencyConflict, TaskNotFound

GRAPH = {
    "name": "order",
    "nodes": [
        {"node_id": "price", "type": "price"},
        {"node_id": "charge", "type": "charge", "depends_on": ["price"], "retry_policy": {"max": 5}},
        {"node_id": "receipt", "type": "receipt", "depends_on": ["charge"]},
    ],
}
PRICES = {"coffee": 320, "cake": 410}


class Order(BaseModel):
    item: str
    quantity: int = 1


def price(item: str, quantity: int) -> dict[str, Any]:
    if item not in PRICES:
        raise flowkit.Permanent("unknown_item", f"we do not sell {item!r}")
    return {"cents": PRICES[item] * quantity}


async def charge(cents: int, ctx: flowkit.Context) -> dict[str, Any]:
    # A payment service would be given ctx.idempotency_key, so that a second attempt does not charge twice.
    return {"cents": cents, "payment": ctx.idempotency_key.rpartition(":")[2]}


def receipt(cents: int, payment: str) -> str:
    return f"{cents / 100:.2f} paid at node {payment}"


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """The engine lives as long as the app. What is not finished at shutdown goes on at the next start."""
    async with flowkit.Embedded(os.environ.get("ORDERS_DB", "orders.db"), handlers=[price, charge, receipt]) as engine:
        app.state.engine = engine
        yield


app = FastAPI(lifespan=lifespan)


@app.post("/orders", status_code=202)
async def submit(order: Order, idempotency_key: Annotated[str | None, Header()] = None) -> dict[str, str]:
    """Accept an order. Once this answers, the order survives a crash; with an Idempotency-Key it can be asked again."""
    try:
        task = await app.state.engine.submit(GRAPH, params=order.model_dump(), idempotency_key=idempotency_key)
    except IdempotencyConflict as error:
        raise HTTPException(409, str(error)) from error
    return {"id": task.id}


@app.get("/orders/{order_id}")
async def status(order_id: str) -> dict[str, Any]:
    """How far it is, node by node."""
    try:
        view = await app.state.engine.coordinator.get_task(order_id)
    except TaskNotFound as error:
        raise HTTPException(404, str(error)) from error
    return {"status": view.status, "nodes": {name: node.state for name, node in view.nodes.items()}}


@app.get("/orders/{order_id}/result")
async def result(order_id: str, wait_sec: float = 10.0) -> dict[str, Any]:
    """What came of it. Waits a moment; 504 if it has not ended by then."""
    try:
        ended = await app.state.engine.coordinator.wait_task(order_id, timeout=min(wait_sec, 30.0))
    except TaskNotFound as error:
        raise HTTPException(404, str(error)) from error
    except TimeoutError as error:
        raise HTTPException(504, str(error)) from error
    if not ended.ok:
        failure = ended.error or {"code": ended.status, "message": ""}
        raise HTTPException(422, {"code": failure["code"], "message": failure["message"]})
    return {"output": ended.output}
