"""Slots that have nothing to do wait here a moment for more, before they go back to Celery."""

import threading


class IdleSlots:
    """Wakes waiting slots when word comes that a run waits, one slot for one run.

    A bell through Celery costs several milliseconds of this process; under load a slot that is already awake claims
    the next run without one. Words are numbered: an answer of the queue that tells how many runs wait settles the
    words that came before it was asked, so nobody claims in vain because of them, and those that came later stand.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        #: Words so far, and how many of them nobody has acted upon.
        self._heard = 0
        self._open = 0
        self._closed = False

    @property
    def heard(self) -> int:
        """How often word came; to be noted before the queue is asked."""
        return self._heard

    def knock(self) -> None:
        """Pass on the word that a run waits: wakes one slot, if any sleeps."""
        with self._changed:
            self._heard += 1
            self._open += 1
            self._changed.notify()

    def learn(self, heard: int, waiting: int) -> None:
        """Take note that ``waiting`` runs waited when the queue was asked, at which time word number ``heard`` was out.

        When some do and no word of them is open, it was lost: one slot is woken, and will pass it on.
        """
        with self._changed:
            self._open = min(self._open, waiting + self._heard - heard)
            if waiting and not self._open:
                self._open = 1
                self._changed.notify()

    def wait(self, seconds: float) -> bool:
        """Sleep until there is word to act upon; False after ``seconds``, or when closed."""
        with self._changed:
            if not self._changed.wait_for(lambda: self._open or self._closed, seconds) or self._closed:
                return False
            self._open -= 1
            return True

    def close(self) -> None:
        """Wake everybody for good."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
