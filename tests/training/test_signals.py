"""Signals: acknowledged at once, obeyed at the next look, handed on to whoever listened before."""

from __future__ import annotations

import os
import signal

import pytest

from sdsbench.core.errors import Interrupted
from sdsbench.training.signals import StopRequest


def test_acknowledged_at_once_and_obeyed_at_the_next_look(capfd: pytest.CaptureFixture[str]) -> None:
    before = signal.getsignal(signal.SIGINT)
    with StopRequest() as stop:
        stop.raise_if_received("nothing came")
        os.kill(os.getpid(), signal.SIGINT)
        assert capfd.readouterr().err == "\nSIGINT: stopping after this step; again: now\n"
        with pytest.raises(Interrupted, match="stopped by SIGINT; all is saved"):
            stop.raise_if_received("all is saved")
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) == before


def test_who_listened_before_hears_of_it_when_the_state_is_saved() -> None:
    """submitit's own handler saves its job and sends it again; an outer request stops what would come next."""
    heard: list[int] = []
    before = signal.signal(signal.SIGUSR2, lambda number, _frame: heard.append(number))
    try:
        with StopRequest() as outer:
            with StopRequest():
                os.kill(os.getpid(), signal.SIGUSR2)
                assert heard == [] and outer.received is None
            assert outer.received == signal.SIGUSR2 and heard == []
        assert heard == [signal.SIGUSR2]
        with StopRequest():
            pass
        assert heard == [signal.SIGUSR2], "nothing came"
    finally:
        signal.signal(signal.SIGUSR2, before)
