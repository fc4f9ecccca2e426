"""A small shop: reads through the cache, writes through it, and counts page views with write-behind.

    REDIS_URL=redis://localhost:6379/0 DATABASE_URL=postgresql://localhost/shop uvicorn examples.fastapi_app:app

Views are added up in Redis and reach the table in batches, each exactly once.
"""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg
from fastapi import FastAPI, HTTPException
from pydantic import BaseModel

from asynccache import Cache, WriteBehind, WriteRejected, WriteThrough
from asynccache.postgres import Database, PostgresTable


class Product(BaseModel):
    id: int
    name: str
    cents: int


class Views(BaseModel):
    seen: int = 0


database = Database(os.environ["DATABASE_URL"])
cache = Cache(os.environ["REDIS_URL"], namespace=os.environ.get("CACHE_NAMESPACE", "shop"), ttl="5m")
products = WriteThrough(cache, "product", source=PostgresTable(database, "products", key="id", model=Product))
views = WriteBehind(cache, "views", sink=PostgresTable(database, "views", key="id", model=Views), flush_every="200ms")


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    connection = await asyncpg.connect(os.environ["DATABASE_URL"])
    await connection.execute(
        "CREATE TABLE IF NOT EXISTS products (id bigint PRIMARY KEY, name text NOT NULL, cents int CHECK (cents >= 0));"
        "CREATE TABLE IF NOT EXISTS views (id bigint PRIMARY KEY, seen bigint NOT NULL)"
    )
    await connection.close()
    async with cache.lifespan(app):  # without tables to make: FastAPI(lifespan=cache.lifespan)
        yield


app = FastAPI(lifespan=lifespan)


@app.get("/products/{product_id}")
async def read(product_id: int) -> Product:
    product = await products.get(product_id)
    if product is None:
        raise HTTPException(404, f"there is no product {product_id}")
    await views.increment(product_id, seen=1)
    return product


@app.put("/products/{product_id}")
async def write(product_id: int, product: Product) -> Product:
    try:
        return await products.put(product_id, product)
    except WriteRejected as error:
        raise HTTPException(422, str(error)) from error


@app.delete("/products/{product_id}", status_code=204)
async def remove(product_id: int) -> None:
    await products.delete(product_id)


@app.get("/products/{product_id}/views")
async def seen(product_id: int) -> int:
    counted = await views.get(product_id)
    return counted.seen if counted else 0


@app.get("/health")
async def health() -> dict[str, object]:
    state = cache.health()
    return {"ok": state.ok, "services": {service.name: service.state.value for service in state.services}}
