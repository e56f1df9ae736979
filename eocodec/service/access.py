"""API keys: who may use the routes."""

import hashlib
import hmac
from typing import Annotated, Any

from fastapi import Depends, HTTPException
from fastapi.security import APIKeyHeader, HTTPAuthorizationCredentials, HTTPBearer

from eocodec.service.settings import Settings

__all__ = ["Access"]

Bearer = Annotated[HTTPAuthorizationCredentials | None, Depends(HTTPBearer(auto_error=False))]
Header = Annotated[str | None, Depends(APIKeyHeader(name="X-API-Key", auto_error=False))]


class Access:
    """Dependencies of routes: `private` ones need a key where there are keys, `readable` ones unless reading is public.

    Arguments:
        settings: with the keys.
    """

    def __init__(self, settings: Settings) -> None:
        self._digests = [hashlib.sha256(key.encode()).digest() for key in settings.keys]
        self.private: list[Any] = [Depends(self._need_key)]
        self.readable: list[Any] = [] if settings.public_read else self.private

    @property
    def open(self) -> bool:
        """Whether there are no keys."""
        return not self._digests

    def _need_key(self, credentials: Bearer, key: Header) -> None:
        if self.open:
            return
        given = hashlib.sha256((credentials.credentials if credentials else key or "").encode()).digest()
        if not any([hmac.compare_digest(given, d) for d in self._digests]):  # a list: all are compared, always
            raise HTTPException(
                401, "an API key is needed, as bearer token or in X-API-Key", {"WWW-Authenticate": "Bearer"}
            )
