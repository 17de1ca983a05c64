"""Signals are acknowledged at once, obeyed at the next check, and then passed to the earlier handler."""

from __future__ import annotations

import os
import signal

import pytest

from sdsbench.core.errors import Interrupted
from sdsbench.training.signals import StopRequest


def test_signal_is_acknowledged_at_once_and_obeyed_at_the_next_check(capfd: pytest.CaptureFixture[str]) -> None:
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


def test_earlier_handler_gets_the_signal_after_the_state_is_saved() -> None:
    """submitit's handler saves its job and submits it again; an outer StopRequest stops later runs."""
    delivered: list[int] = []
    before = signal.signal(signal.SIGUSR2, lambda number, _frame: delivered.append(number))
    try:
        with StopRequest() as outer:
            with StopRequest():
                os.kill(os.getpid(), signal.SIGUSR2)
                assert delivered == [] and outer.received is None
            assert outer.received == signal.SIGUSR2 and delivered == []
        assert delivered == [signal.SIGUSR2]
        with StopRequest():
            pass
        assert delivered == [signal.SIGUSR2], "no signal came, so none is passed on"
    finally:
        signal.signal(signal.SIGUSR2, before)
