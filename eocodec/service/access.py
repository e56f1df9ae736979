"""API keys: who may use the routes."""

import hashlib
import hmac
from typing import Annotated, Any

from fastapi import Depends, HTTPException, Request
from fastapi.security import APIKeyHeader, HTTPAuthorizationCredentials, HTTPBearer

from eocodec.service.negotiation import shown
from eocodec.service.settings import Settings
from eocodec.service.signing import check

__all__ = ["Access"]

PLAIN = ("bytes", "latents", "rate", "v")  # parameters with which an image is a file, or a part of one

Bearer = Annotated[HTTPAuthorizationCredentials | None, Depends(HTTPBearer(auto_error=False))]
Header = Annotated[str | None, Depends(APIKeyHeader(name="X-API-Key", auto_error=False))]


class Access:
    """Dependencies of routes: `private` ones need a key where there are keys, `readable` ones a key or a signed URL.

    `shown` ones are readable, and may send a picture where the URL says nothing but a file's name, as the headers wish.
    Where reading is public, files need neither, nor do pictures made of them unless there are keys of signed URLs:
    making them takes work.

    Arguments:
        settings: with the keys.
    """

    def __init__(self, settings: Settings) -> None:
        self._digests = [hashlib.sha256(key.encode()).digest() for key in settings.keys]
        self.private: list[Any] = [Depends(self._need_key)]
        self._signing, self._public = settings.signing, settings.public_read
        self.readable: list[Any] = [Depends(self._need_right)]
        self.shown: list[Any] = [Depends(self._need_right_to_see)]

    @property
    def open(self) -> bool:
        """Whether there are no keys."""
        return not self._digests

    def _need_right_to_see(self, request: Request, credentials: Bearer, key: Header) -> None:
        file = "format=eoc" in request.url.query.split("&")
        self._check(request, credentials, key, made=not file and shown(request.headers))

    def _need_right(self, request: Request, credentials: Bearer, key: Header) -> None:
        self._check(request, credentials, key)

    def _check(self, request: Request, credentials: Bearer, key: Header, made: bool = False) -> None:
        query = request.url.query
        if self._signing and any(part.startswith("signature=") for part in query.split("&")):
            path = request.scope.get("raw_path", request.scope["path"].encode()).decode("latin-1")
            if check(self._signing, path, query):
                return
            raise HTTPException(403, "the signature of this URL does not hold, or not any more")
        words = query.split("&") if query else []
        plain = not made and all(part == "format=eoc" or part.partition("=")[0] in PLAIN for part in words)
        if self._public and (plain or not self._signing):
            return
        if self._signing and self.open and not plain:
            raise HTTPException(403, "pictures are made for signed URLs only")
        self._need_key(credentials, key)

    def _need_key(self, credentials: Bearer, key: Header) -> None:
        if self.open:
            return
        given = hashlib.sha256((credentials.credentials if credentials else key or "").encode()).digest()
        if not any([hmac.compare_digest(given, d) for d in self._digests]):  # a list: all are compared, always
            raise HTTPException(
                401, "an API key is needed, as bearer token or in X-API-Key", {"WWW-Authenticate": "Bearer"}
            )
