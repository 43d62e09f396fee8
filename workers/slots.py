"""Slots that have nothing to do wait here a moment for more, before they go back to Celery."""

import threading


class IdleSlots:
    """Wakes waiting slots when word comes that a run waits.

    A bell through Celery costs several milliseconds of this process; under load a slot that is already awake claims
    the next run without one. What was heard is counted, so a slot that looked before the word came does not sleep
    through it.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._heard = 0
        self._closed = False

    @property
    def heard(self) -> int:
        """How often word came; a slot notes it before it claims."""
        return self._heard

    def knock(self) -> None:
        """Pass on the word that a run waits: wakes one slot, if any sleeps."""
        with self._changed:
            self._heard += 1
            self._changed.notify()

    def wait(self, heard: int, seconds: float) -> bool:
        """Sleep until word comes that is newer than ``heard``; False after ``seconds``, or when closed."""
        with self._changed:
            return self._changed.wait_for(lambda: self._heard != heard or self._closed, seconds) and not self._closed

    def close(self) -> None:
        """Wake everybody for good."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
