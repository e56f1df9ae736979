"""How the service runs: addresses apart, everything that `eocodec serve` lets its caller choose."""

from dataclasses import dataclass, field

__all__ = ["Settings"]


@dataclass(frozen=True)
class Settings:
    """How the service runs.

    Arguments:
        models: paths of the bundles by name; the first is the default.
        workers: processes that work on pictures.
        queue: requests that may wait for one.
        threads: of every process; 0 is one per core.
        device: "auto", "cuda" or "cpu".
        max_body: bytes.
        max_pixels: of a picture.
        timeout: seconds of work for a request.
        upload_timeout: seconds for a body to arrive.
        store: folder or fsspec URL of the stored images; None: there is none.
        keys: API keys; empty: none is needed.
        public_read: stored images can be read without a key.
        cache_seconds: how long stored images may be kept without asking again.
        origins: other origins whose pages may use the service.
        presets: queries of stored images by name.
        signing: keys of signed URLs; where there are any, pictures that are made need an API key or a signature.
        sources: URLs that pictures may be fetched from, and all below them.
        cache: bytes on disk of pictures that were made.
        write_timeout: seconds that a client may take to read a chunk of an answer.
        worker_memory: bytes that a process may keep between two requests; 0: there is no bound.
        root_path: prefix under which a proxy offers the service, which it takes off.
        unusable: installed models that were left out, and why.
        hosts: without keys, names that the service may be called by besides those of this machine.
    """

    models: dict[str, str]
    workers: int = 2
    queue: int = 16
    threads: int = 1
    device: str = "auto"
    max_body: int = 64 << 20
    max_pixels: int = 1 << 25
    timeout: float = 120.0
    upload_timeout: float = 30.0
    store: str | None = None
    keys: tuple[str, ...] = ()
    public_read: bool = False
    cache_seconds: int = 60
    origins: tuple[str, ...] = ()
    presets: dict[str, str] = field(default_factory=dict)
    signing: tuple[str, ...] = ()
    sources: tuple[str, ...] = ()
    cache: int = 256 << 20
    write_timeout: float = 30.0
    worker_memory: int = 1 << 30
    root_path: str = ""
    hosts: tuple[str, ...] = ()
    unusable: dict[str, str] = field(default_factory=dict)

    @property
    def embedded(self) -> str:
        """Which sites may show the images in their pages: the header Cross-Origin-Resource-Policy."""
        return "cross-origin" if self.public_read or self.signing or self.origins else "same-origin"

    @property
    def cache_control(self) -> str:
        """How long answers to who may read images can be kept, and by whom: the header Cache-Control."""
        return f"{'public' if self.public_read or not self.keys else 'private'}, max-age={self.cache_seconds}"
