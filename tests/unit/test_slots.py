"""Idle slots: one word wakes one slot, a settled word wakes nobody, a lost one is made up for."""

import threading

from tests.processes import until
from workers.slots import IdleSlots


def test_each_word_wakes_one_slot() -> None:
    idle = IdleSlots()
    idle.knock()
    idle.knock()
    assert idle.wait(0)
    assert idle.wait(0)
    assert not idle.wait(0)


def test_words_are_settled_by_an_empty_queue_but_not_those_that_came_after_it_was_asked() -> None:
    idle = IdleSlots()
    idle.knock()
    heard = idle.heard
    idle.knock()
    idle.learn(heard, 0)
    assert idle.wait(0)
    assert not idle.wait(0)


def test_a_lost_word_is_made_up_for() -> None:
    idle = IdleSlots()
    idle.learn(idle.heard, 3)
    assert idle.wait(0)
    assert not idle.wait(0)


def test_closing_wakes_everybody_for_good() -> None:
    idle = IdleSlots()
    woken: list[bool] = []
    sleeping = [threading.Thread(target=lambda: woken.append(idle.wait(30))) for _ in range(3)]
    for thread in sleeping:
        thread.start()
    idle.close()
    until(lambda: len(woken) == 3)
    assert woken == [False] * 3
    idle.knock()
    assert not idle.wait(0)
