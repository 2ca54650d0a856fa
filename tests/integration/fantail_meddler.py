"""Stands between a producer and a consumer on tcp and changes their messages on the way."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import zmq

from fantail_lab import Link, PortPool, Seat, replace_flag

Parts = list[bytes]
"""Of one message as the peers know it: topic, header and payload, or header and payload on the control link."""

_POLL_MILLISECONDS = 20
_MAJOR = 4  # byte of the header
_KIND = 5


def kind_of(parts: Parts) -> int:
    """Which message it is: byte 5 of its header."""
    return parts[-2][_KIND]


def with_major(parts: Parts, major: int) -> Parts:
    """The same message, said in another version of the protocol."""
    header = parts[-2]
    return [*parts[:-2], header[:_MAJOR] + bytes([major]) + header[_MAJOR + 1 :], parts[-1]]


class Meddler:
    """Relays data and control of one producer and one consumer; every message goes through `change` on its way."""

    def __init__(self, change: Callable[[Parts], Parts]) -> None:
        self.change = change
        self.front = ""
        """The data address for the side that connects; its control address is the next port, as ever."""

    @contextmanager
    def between(self, link: Link, ports: PortPool) -> Iterator[Link]:
        """The link whose connecting side meets us instead of the side that binds."""
        port = ports.take()
        self.front = f"tcp://127.0.0.1:{port}"
        producer_binds = "--bind" in link.producers[0].flags
        binder = link.producers[0] if producer_binds else link.consumers[0]
        stopping = threading.Event()
        with zmq.Context() as context:
            thread = threading.Thread(
                target=self._run, args=(context, binder, producer_binds, f"tcp://127.0.0.1:{port + 1}", stopping), daemon=True
            )
            thread.start()
            try:
                yield self._moved(link, producer_binds)
            finally:
                stopping.set()
                thread.join()

    def _moved(self, link: Link, producer_binds: bool) -> Link:
        connector = link.consumers[0] if producer_binds else link.producers[0]
        flag = "--connect" if producer_binds else "--endpoint"
        moved = (Seat(connector.place, tuple(replace_flag(connector.flags, flag, self.front))),)
        return Link(link.producers, moved) if producer_binds else Link(moved, link.consumers)

    def _run(
        self, context: zmq.Context, binder: Seat, producer_binds: bool, control: str, stopping: threading.Event
    ) -> None:
        with (
            context.socket(zmq.XSUB) as from_producer,
            context.socket(zmq.XPUB) as to_consumer,
            context.socket(zmq.ROUTER) as connector,
            context.socket(zmq.DEALER) as acceptor,
        ):
            sockets = (from_producer, to_consumer, connector, acceptor)
            for socket in sockets:
                socket.setsockopt(zmq.LINGER, 0)
                socket.setsockopt(zmq.SNDHWM, 0)
                socket.setsockopt(zmq.RCVHWM, 0)
            (to_consumer if producer_binds else from_producer).bind(self.front)
            (from_producer if producer_binds else to_consumer).connect(binder.endpoint)
            connector.bind(control)
            acceptor.connect(binder.control)
            poller = zmq.Poller()
            for socket in sockets:
                poller.register(socket, zmq.POLLIN)
            who: bytes | None = None
            while not stopping.is_set():
                for socket, _ in poller.poll(_POLL_MILLISECONDS):
                    parts = socket.recv_multipart()
                    if socket is to_consumer:  # a subscription
                        from_producer.send_multipart(parts)
                    elif socket is from_producer:
                        to_consumer.send_multipart(self.change(parts))
                    elif socket is connector:
                        who, *parts = parts
                        acceptor.send_multipart(self.change(parts))
                    elif who is not None:
                        connector.send_multipart([who, *self.change(parts)])
