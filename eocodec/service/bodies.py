"""Bodies of requests, within a size and a time.

In: a request. Out: the bytes of the picture, and the other fields where it came in a form.
"""

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

from fastapi import HTTPException, Request
from starlette.datastructures import FormData, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect

from eocodec.service.lingering import refuse_body
from eocodec.service.options import check_once
from eocodec.service.pool import Gone
from eocodec.service.settings import Settings

__all__ = ["Bodies", "described"]

LARGEST_FIELD = 1024  # bytes of a form's field that is not the picture


class Bodies:
    """Reads bodies, whole or as the one file of a form, within a size and a time."""

    def __init__(self, settings: Settings) -> None:
        self.limit, self.seconds = settings.max_body, settings.upload_timeout

    async def read(self, request: Request) -> tuple[bytes, dict[str, str]]:
        """The picture, and the other fields if it came in a form.

        Raises:
            HTTPException: 413 too long, 408 too slow, 400 not a form, 415 encoded.
            EocodecError: a field of the form is given twice.
        """
        (body,), fields = await self.read_files(request, 1)
        return body, fields

    async def read_files(self, request: Request, most: int) -> tuple[list[bytes], dict[str, str]]:
        """One picture or, of a form, up to `most`, in their order, and the other fields.

        Raises:
            HTTPException, EocodecError: as :meth:`read`. What is left of the body is read after the answer.
        """
        try:
            _check_plain(request)
            return await self._read(request, most)
        except HTTPException:
            refuse_body(request.scope)
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

    async def _chunks(self, request: Request) -> AsyncGenerator[bytes, None]:
        too_long = HTTPException(413, f"the body has more than the {self.limit} bytes that are allowed")
        if int(request.headers.get("content-length", 0)) > self.limit:
            raise too_long
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
            fields = [(k, v) for k, v in form.multi_items() if isinstance(v, str)]
            check_once(name for name, _ in fields)
            return [await image.read() for image in images], dict(fields)
        except (MultiPartException, UnicodeError) as e:
            raise HTTPException(400, f"the form cannot be read ({getattr(e, 'message', 'its text')})") from None
        finally:
            await form.close()


def _check_plain(request: Request) -> None:
    """Refuse a body that is encoded as a whole: what is in it would not be known before it is read.

    Raises:
        HTTPException: 415, it is encoded.
    """
    codings = [c.strip().lower() for c in ",".join(request.headers.getlist("content-encoding")).split(",")]
    if not set(codings) <= {"", "identity"}:
        named = ", ".join(c for c in codings if c)[:64]
        detail = f"bodies with Content-Encoding: {named} are not read; send the body without it"
        raise HTTPException(415, detail, {"Accept-Encoding": "identity"})


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
