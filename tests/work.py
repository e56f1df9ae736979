"""What worker processes do in tests. They import this module and what it imports, so that is little."""

import contextlib
import os
import signal
import time

from eocodec.errors import EocodecError


def start(number: int) -> object:
    os.environ["EOCODEC_NUMBER"] = str(number)
    return open(os.devnull)


def refuse() -> None:
    raise EocodecError("not today")


def leave() -> None:
    os._exit(3)


def number() -> tuple[int, int]:
    return int(os.environ["EOCODEC_NUMBER"]), os.getpid()


def add(a: int, b: int) -> int:
    return a + b


def fail() -> None:
    raise EocodecError("no such thing")


class Odd(Exception):
    """An exception that pickle takes apart and cannot put together."""

    def __init__(self, a: int, b: int) -> None:
        super().__init__(f"{a} is not {b}")


def fail_oddly() -> None:
    raise Odd(1, 2)


def open_file() -> object:
    return open(os.devnull)


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def sleep(seconds: float) -> None:
    time.sleep(seconds)


def large(size: int) -> bytes:
    return bytes(size)


def variables(names: list[str]) -> list[str | None]:
    return [os.environ.get(name) for name in names]


def whose(number: int, folder: str) -> tuple[int, int]:
    """The number and this process, as soon as two processes have been given one."""
    open(os.path.join(folder, str(os.getpid())), "w").close()
    end = time.monotonic() + 60
    while len(os.listdir(folder)) < 2 and time.monotonic() < end:
        time.sleep(0.002)
    return number, os.getpid()


def spin() -> None:
    while True:
        pass


def stubborn() -> None:
    """Not to be stopped from Python: as long native code is."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
    while True:
        pass


def swallow() -> None:
    while True:
        with contextlib.suppress(Exception):
            spin()


def infer() -> None:
    import numpy as np

    from eocodec.model.library import load_model

    model = load_model("photo", 1, device="cpu")
    model.run("encoder", {"picture": np.zeros((1, 3, 2048, 2048), np.float32)})
