"""One asyncio loop in a daemon thread, for the libraries of the lab that are asynchronous."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from functools import cache
from typing import Any, TypeVar

Result = TypeVar("Result")


@cache
def loop() -> asyncio.AbstractEventLoop:
    """The loop, started on first use; it ends with the process."""
    created = asyncio.new_event_loop()
    threading.Thread(target=created.run_forever, name="lab-asyncio", daemon=True).start()
    return created


def run(work: Coroutine[Any, Any, Result], deadline_s: float, waiting_for: str) -> Result:
    """Run a coroutine on the loop and wait for it.

    Raises TimeoutError, which names `waiting_for`, after `deadline_s` seconds, and whatever
    the coroutine raises.
    """
    future = asyncio.run_coroutine_threadsafe(asyncio.wait_for(work, deadline_s), loop())
    try:
        return future.result()
    except TimeoutError:
        raise TimeoutError(f"waited {deadline_s:g} s for {waiting_for}") from None
