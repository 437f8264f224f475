"""Being stopped without losing work."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from convarium.errors import Interrupted


class Stop:
    """Whether somebody has asked to stop; the loop looks at it after each step."""

    def __init__(self) -> None:
        self.signal: int | None = None

    def check(self, where: str) -> None:
        """Raise when somebody has asked to stop.

        Args:
            where: what is lost or kept, for the message.

        Raises:
            Interrupted: a stop was asked for.
        """
        if self.signal is not None:
            raise Interrupted(f"stopped by {signal.Signals(self.signal).name}; {where}", self.signal)


@contextmanager
def listening() -> Iterator[Stop]:
    """Turn SIGINT and SIGTERM into a request to stop; a second SIGINT stops at once.

    Outside the main thread, where Python allows no handlers, nothing is listened to.

    Yields:
        The request, unset.
    """
    stop = Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return

    def note(number: int, frame: FrameType | None) -> None:
        if stop.signal is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        stop.signal = number

    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
