"""An HTTP client for a server that is not trusted: its bodies are limited in size, and it cannot send a request elsewhere."""

from collections.abc import AsyncIterator, Awaitable, Callable

import httpx2


class TooLong(Exception):
    """A response's body is longer than the limit; the message says so."""


class _Limited(httpx2.AsyncByteStream):
    """The decoded bytes of a response, up to a limit. The library decodes at most 1 MiB at once, whatever the compression."""

    def __init__(self, response: httpx2.Response, limit: int) -> None:
        # A second response around the same stream: it decodes, and the first one then has nothing to decode.
        self.inner = httpx2.Response(response.status_code, headers=response.headers, stream=response.stream)
        self.limit = limit

    async def __aiter__(self) -> AsyncIterator[bytes]:
        size = 0
        async for part in self.inner.aiter_bytes():
            size += len(part)
            if size > self.limit:
                raise TooLong(f"the response is longer than {self.limit} bytes")
            yield part

    async def aclose(self) -> None:
        await self.inner.aclose()


def limited_to(limit: int) -> Callable[[httpx2.Response], Awaitable[None]]:
    """A response hook for httpx2: reading a body of more than ``limit`` decoded bytes raises ``TooLong``."""

    async def hook(response: httpx2.Response) -> None:
        response.stream = _Limited(response, limit)
        response.headers.pop("content-encoding", None)

    return hook
