"""Bodies of requests, within a size and a time.

In: a request. Out: the bytes of the picture, and the other fields where it came in a form.
"""

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from typing import Any

from fastapi import HTTPException, Request
from starlette.datastructures import FormData, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect

from eocodec.service.pool import Gone
from eocodec.service.settings import Settings

__all__ = ["Bodies", "described"]

LARGEST_FIELD = 1024  # bytes of a form's field that is not the picture
DRAIN_SECONDS, DRAIN_BYTES = 5.0, 16 << 20  # what is still read of a body that is refused
UNREAD = "eocodec.unread"  # in the scope of a request whose body is refused before its end


class Bodies:
    """Reads bodies, whole or as the one file of a form, within a size and a time."""

    def __init__(self, settings: Settings) -> None:
        self.limit, self.seconds = settings.max_body, settings.upload_timeout

    async def read(self, request: Request) -> tuple[bytes, dict[str, str]]:
        """The picture, and the other fields if it came in a form.

        Raises:
            HTTPException: 413 too long, 408 too slow, 400 not a form.
        """
        (body,), fields = await self.read_files(request, 1)
        return body, fields

    async def read_files(self, request: Request, most: int) -> tuple[list[bytes], dict[str, str]]:
        """One picture or, of a form, up to `most`, in their order, and the other fields.

        Raises:
            HTTPException: as :meth:`read`. What is left of the body is for :meth:`drain`, without a place.
        """
        try:
            return await self._read(request, most)
        except HTTPException:
            request.scope[UNREAD] = True
            raise

    async def _read(self, request: Request, most: int) -> tuple[list[bytes], dict[str, str]]:
        try:
            async with asyncio.timeout(self.seconds):
                if request.headers.get("content-type", "").lower().startswith("multipart/form-data"):
                    return await self._form(request, most)
                return [b"".join([chunk async for chunk in self._chunks(request)])], {}
        except ClientDisconnect:
            raise Gone from None
        except TimeoutError:
            raise HTTPException(408, f"the body did not arrive within {self.seconds:g} s") from None

    def is_refused(self, request: Request) -> bool:
        """Whether reading the body ended before its end, so that the rest is to be drained, without a place."""
        return bool(request.scope.get(UNREAD))

    async def drain(self, request: Request) -> None:
        """Read what is left of a body and forget it: a client that is still sending might not read the answer.

        One that waits to be told to send (`Expect: 100-continue`) is not told so, and gets the answer at once.
        """
        if request.headers.get("expect", "").lower() == "100-continue" and not request.scope.get("eocodec.reading"):
            return
        size = 0
        with contextlib.suppress(TimeoutError, ClientDisconnect, RuntimeError):  # RuntimeError: all was read already
            async with asyncio.timeout(min(self.seconds, DRAIN_SECONDS)):
                async for chunk in request.stream():
                    size += len(chunk)
                    if size > self.limit + DRAIN_BYTES:
                        break

    async def _chunks(self, request: Request) -> AsyncGenerator[bytes, None]:
        too_long = HTTPException(
            413,
            f"the body has more than the {self.limit} bytes that are allowed",
            {"Connection": "close"},
        )
        if int(request.headers.get("content-length", 0)) > self.limit:
            raise too_long
        request.scope["eocodec.reading"] = True
        size = 0
        async for chunk in request.stream():
            size += len(chunk)
            if size > self.limit:
                raise too_long
            yield chunk

    async def _form(self, request: Request, most: int) -> tuple[list[bytes], dict[str, str]]:
        parser = MultiPartParser(
            request.headers, self._chunks(request), max_files=most, max_fields=32, max_part_size=LARGEST_FIELD
        )
        form = FormData()
        try:
            form = await parser.parse()
            images = [v for _, v in form.multi_items() if isinstance(v, UploadFile)]
            if not images:
                raise HTTPException(400, "the form has no file; send the picture in one of its fields")
            fields = {k: v for k, v in form.items() if isinstance(v, str)}
            return [await image.read() for image in images], fields
        except (MultiPartException, UnicodeError) as e:
            raise HTTPException(400, f"the form cannot be read ({getattr(e, 'message', 'its text')})") from None
        finally:
            await form.close()


def described(description: str) -> dict[str, Any]:
    """OpenAPI's description of a body that is raw or a form."""
    raw = {"schema": {"type": "string", "format": "binary", "description": description}}
    form = {
        "type": "object",
        "required": ["image"],
        "properties": {"image": {"type": "string", "format": "binary"}},
        "description": "one file, in a field of any name; the other fields are parameters as in the query",
        "additionalProperties": {"type": "string"},
    }
    content = {"application/octet-stream": raw, "image/*": raw, "multipart/form-data": {"schema": form}}
    return {"requestBody": {"required": True, "content": content}}
