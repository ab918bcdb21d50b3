"""The sockets below this process's PostgreSQL connections, so that a wait that nothing else ends can be ended.

A database that hangs (a stopped process, a machine that is gone, a network that swallows everything) leaves a thread
waiting inside libpq: no timeout of the server's fires, and the socket looks alive. Shutting that socket down from
another thread wakes the waiting one with an ordinary `django.db.OperationalError`.
"""

import os
import socket
import threading
import weakref
from typing import Any

from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.backends.signals import connection_created

_wires: "weakref.WeakKeyDictionary[Any, socket.socket]" = weakref.WeakKeyDictionary()
_lock = threading.Lock()


def watch_connections() -> None:
    """Note the socket of every connection from now on."""
    connection_created.connect(_note, dispatch_uid=__name__)


def cut(connection: BaseDatabaseWrapper | None) -> None:
    """End whatever a connection waits for. May be called from any thread; no harm where there is nothing to cut."""
    driver = connection.connection if connection is not None else None
    if driver is not None:
        with _lock:
            wire = _wires.get(driver)
        _shut_down(wire)


def cut_all() -> None:
    """End whatever any connection of this process waits for."""
    with _lock:
        wires = list(_wires.values())
    for wire in wires:
        _shut_down(wire)


def _note(connection: BaseDatabaseWrapper, **_: Any) -> None:
    if connection.vendor != "postgresql":
        return
    driver: Any = connection.connection
    # A duplicate of our own: the driver's number may belong to another file by the time that somebody cuts.
    wire = socket.socket(fileno=os.dup(driver.fileno()))
    weakref.finalize(driver, wire.close)
    with _lock:
        _wires[driver] = wire


def _shut_down(wire: socket.socket | None) -> None:
    if wire is None:
        return
    try:
        wire.shutdown(socket.SHUT_RDWR)
    except OSError:
        return  # it was down already
