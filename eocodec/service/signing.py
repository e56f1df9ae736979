"""Signed URLs: who has one may get what it names, and nothing else, without a key of the interface.

In: a key, a path with its query. Out: the query with `signature` (and `expires`), or whether it holds. The signature is
the URL-safe Base64 of HMAC-SHA-256 over the path, "?" and the query without `signature`, as it stands.
"""

import base64
import hashlib
import hmac
import time

__all__ = ["check", "sign"]

NAME = "signature"


def _of(key: bytes, path: str, query: str) -> str:
    digest = hmac.new(key, f"{path}?{query}".encode(), hashlib.sha256).digest()
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()


def sign(key: str, target: str, expires: float | None = None) -> str:
    """A path, with its query if it has one, signed.

    Arguments:
        key: one of the service's.
        target: such as "/v1/images/cat?width=200", without scheme and host, with the prefix of `--root-path`.
        expires: seconds since 1970 until which it holds; None: for ever.

    Example:
        >>> signed = sign("0123456789abcdef", "/v1/images/cat?width=200")
        >>> signed[:45]
        '/v1/images/cat?width=200&signature=c6Lum0neIk'
        >>> path, _, query = signed.partition("?")
        >>> check(["0123456789abcdef"], path, query), check(["another key of any"], path, query)
        (True, False)
    """
    path, _, query = target.partition("?")
    if expires is not None:
        query = f"{query}&expires={int(expires)}" if query else f"expires={int(expires)}"
    signature = _of(key.encode(), path, query)
    return f"{path}?{query}&{NAME}={signature}" if query else f"{path}?{NAME}={signature}"


def check(keys: list[str] | tuple[str, ...], path: str, query: str) -> bool:
    """Whether a query carries a signature of one of the keys, as its last parameter, that holds now."""
    rest, mark, signature = query.rpartition(f"{NAME}=")
    if not mark or "&" in signature or (rest and not rest.endswith("&")):
        return False
    rest = rest.removesuffix("&")
    given = signature.encode()
    fine = [hmac.compare_digest(given, _of(key.encode(), path, rest).encode()) for key in keys]
    expiries = [part.removeprefix("expires=") for part in rest.split("&") if part.startswith("expires=")]
    in_time = not expiries or (len(expiries) == 1 and expiries[0].isdigit() and time.time() < int(expiries[0]))
    return any(fine) and in_time
