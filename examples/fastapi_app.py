"""Sends each user of a document to the one process that holds it: a FastAPI application.

Run it beside `plane dev`: `PLANE_CONTROLLER=http://127.0.0.1:8080 fastapi run examples/fastapi_app.py`
"""

import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI, HTTPException
from fastapi.responses import RedirectResponse

from plane.client import ApiErrorKind, AsyncPlane, CallRefused, KeyConfig, ProcessExecutable, SpawnConfig

SERVER = ["/bin/sh", "-c", f"exec {sys.executable} -m http.server --bind 127.0.0.1 $PORT"]


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    # One client for the whole application: it keeps its connections.
    async with AsyncPlane(os.environ["PLANE_CONTROLLER"]) as plane:
        app.state.plane = plane
        yield


app = FastAPI(lifespan=lifespan)


@app.get("/documents/{name}")
async def open_document(name: str, user: str) -> RedirectResponse:
    spawn = SpawnConfig(executable=ProcessExecutable(command=SERVER), max_idle_seconds=300)
    plane: AsyncPlane = app.state.plane
    try:
        # The browser may follow at once: the proxy waits until the process answers.
        answer = await plane.connect(KeyConfig(name=name, namespace="documents"), spawn, user=user)
    except CallRefused as error:
        full = error.kind is ApiErrorKind.NO_DRONE_AVAILABLE
        raise HTTPException(503 if full else 502, str(error)) from error
    return RedirectResponse(answer.url)
