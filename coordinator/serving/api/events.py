"""``GET /v1/erasures/{id}/events``: changes of a request as they happen, resumable."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import Depends, Header
from fastapi.sse import EventSourceResponse, ServerSentEvent

from coordinator.serving.api.erasures import READERS, RequestId
from coordinator.serving.api.routing import Asker, Serving, allow, new_router, problems
from coordinator.serving.office import Office

router = new_router("erasures")
RETRY_MS = 2000
LastEventId = Annotated[
    str | None, Header(pattern=r"^[0-9]{0,9}$", description="go on after this event")
]


async def known_request(request_id: RequestId, services: Serving) -> str:
    """The id of a request that there is; asked before the answer begins.

    Raises:
        NotFoundError: there is none.
    """
    await services.office.ask(Office.request, request_id)
    return request_id


async def one_stream(services: Serving, caller: Asker) -> AsyncIterator[None]:
    """Count the stream from before the answer begins until its end, or until the client left.

    Raises:
        ProblemError: 429.
    """
    with services.streams.one(caller.name):
        yield


@router.get(
    "/erasures/{request_id}/events",
    response_class=EventSourceResponse,
    responses=problems(404, 429),
    dependencies=[Depends(one_stream)],
)
@allow(*READERS)
async def follow(
    request_id: Annotated[str, Depends(known_request)],
    services: Serving,
    last_event_id: LastEventId = None,
) -> AsyncIterator[ServerSentEvent]:
    """Every change of a request's state as a server-sent event, until it is closed.

    The stream ends after a while, too; a browser then comes again with ``Last-Event-ID``.
    """
    ask, settings = services.office.ask, services.settings
    after, clock = int(last_event_id or 0), asyncio.get_running_loop().time
    end = clock() + settings.follow_longest_s
    while True:
        is_closed = (await ask(Office.request, request_id))["is_closed"]
        for event in await ask(Office.events, request_id, after):
            after = event["seq"]
            yield ServerSentEvent(data=event, event=event["state"], id=str(after), retry=RETRY_MS)
        if is_closed or clock() >= end:
            return
        await asyncio.sleep(settings.follow_s)
