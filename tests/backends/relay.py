"""
A TCP relay in front of a server on loopback: it sees what passes and cuts connections as a network does.

It knows nothing of the receiver behind it; of HTTP/2 it knows just enough to see whether gRPC messages were compressed.
"""

import contextlib
import socket
import threading
from collections import deque
from collections.abc import Callable

LOOPBACK = "127.0.0.1"


class Relay:
    """
    Passes TCP connections on to a server.

    Args:
        target_port: the server's port on loopback.
        is_http2: whether to read the clients' bytes as plain HTTP/2, for `next_encoding`.

    Attributes:
        port: the port for clients; it stays the same over `stop` and `start`.
    """

    def __init__(self, target_port: int, *, is_http2: bool = False):
        self._target = (LOOPBACK, target_port)
        self._is_http2 = is_http2
        self._lock = threading.Lock()
        self._connections: dict[int, _Connection] = {}
        self._socket = self._bind(0)
        self.port: int = self._socket.getsockname()[1]
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Listen."""
        self._socket.listen(128)
        self._thread = threading.Thread(target=self._accept, args=(self._socket,), daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stop listening and cut every connection."""
        if self._thread is not None:
            self._socket.shutdown(socket.SHUT_RDWR)  # wakes the thread in accept
            self._thread.join()
            self._thread = None
            self._socket.close()
            self._socket = self._bind(self.port)
        with self._lock:
            connections = list(self._connections.values())
        for connection in connections:
            connection.cut()
            connection.join()

    def close(self) -> None:
        """Stop for good and give the port back."""
        self.stop()
        self._socket.close()

    def cut(self, server_side_port: int) -> None:
        """Cut the connection that the server knows by this port of its peer."""
        with self._lock:
            connection = self._connections.get(server_side_port)
        if connection is not None:
            connection.cut()

    def next_encoding(self, server_side_port: int) -> str | None:
        """
        Whether the next gRPC message of a connection was compressed.

        Messages are told apart by their order, so those under way at the same time in one connection may change places.

        Args:
            server_side_port: the port of its peer as the server sees it.

        Returns:
            `gzip` (gRPC's flag says only "compressed") or `identity`; None where it cannot be seen.
        """
        with self._lock:
            connection = self._connections.get(server_side_port)
        if connection is None or connection.compression is None or not connection.compression.flags:
            return None
        return "gzip" if connection.compression.flags.popleft() else "identity"

    @staticmethod
    def _bind(port: int) -> socket.socket:
        """Hold a port without listening on it: nobody else gets it, and connections are refused."""
        holder = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        holder.bind((LOOPBACK, port))
        return holder

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                client = listener.accept()[0]
            except OSError:
                return  # stopped
            try:
                server = socket.create_connection(self._target)
            except OSError:
                client.close()
                continue
            connection = _Connection(client, server, is_http2=self._is_http2, on_end=self._forget)
            with self._lock:
                self._connections[connection.port] = connection
            connection.start()

    def _forget(self, port: int) -> None:
        with self._lock:
            self._connections.pop(port, None)


class _Connection:
    """
    One relayed connection: a thread for each direction; when one ends, the whole connection does.

    Args:
        client: the accepted socket; owned from here on.
        server: the socket to the server; owned from here on.
        is_http2: whether the client's bytes are plain HTTP/2.
        on_end: called with `port` when both threads are done and the sockets closed.
    """

    def __init__(
        self, client: socket.socket, server: socket.socket, *, is_http2: bool, on_end: Callable[[int], None]
    ):
        self._sides = (client, server)
        self._on_end = on_end
        self._lock = threading.Lock()
        self._running = 2
        self.port: int = server.getsockname()[1]
        self.compression = GrpcCompression() if is_http2 else None
        self._threads = [
            threading.Thread(target=self._pump, args=(client, server, self.compression), daemon=True),
            threading.Thread(target=self._pump, args=(server, client, None), daemon=True),
        ]

    def start(self) -> None:
        """Pass bytes on from now on."""
        for thread in self._threads:
            thread.start()

    def cut(self) -> None:
        """End both directions; the threads close the sockets."""
        for side in self._sides:
            with contextlib.suppress(OSError):  # the other end may be faster
                side.shutdown(socket.SHUT_RDWR)

    def join(self) -> None:
        """Wait until both threads are done."""
        for thread in self._threads:
            thread.join()

    def _pump(self, source: socket.socket, sink: socket.socket, reader: "GrpcCompression | None") -> None:
        with contextlib.suppress(OSError):  # either end may go at any time
            while chunk := source.recv(1 << 16):
                if reader is not None:
                    reader.feed(chunk)  # before the server can see the message
                sink.sendall(chunk)
        self.cut()
        with self._lock:
            self._running -= 1
            if self._running:
                return
        for side in self._sides:
            side.close()
        self._on_end(self.port)


class GrpcCompression:
    """
    Reads from a client's HTTP/2 bytes whether each gRPC message was compressed.

    A frame is: length (3 bytes), type, flags, stream (4 bytes), payload. The payloads of a stream's DATA frames hold
    the gRPC message, whose first byte says whether it is compressed. OTLP's calls carry one message a stream.

    Attributes:
        flags: one entry a message, oldest first; whoever uses one takes it out.
    """

    _PREFACE = len(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
    _HEADER = 9
    _DATA = 0
    _PADDED = 0x8

    def __init__(self) -> None:
        self.flags: deque[bool] = deque()
        self._bytes = bytearray()
        self._skip = self._PREFACE
        self._started: set[int] = set()

    def feed(self, chunk: bytes) -> None:
        """Take the next bytes, cut anywhere."""
        self._bytes += chunk
        position = self._skip
        while position + self._HEADER <= len(self._bytes):
            header = self._bytes[position : position + self._HEADER]
            end = position + self._HEADER + int.from_bytes(header[:3])
            if header[3] == self._DATA:
                if end > len(self._bytes):
                    break
                self._data(int.from_bytes(header[5:]), header[4], self._bytes[position + self._HEADER : end])
            position = end
        # What lies beyond the bytes at hand (a long frame's rest) is skipped when it comes.
        self._skip = max(0, position - len(self._bytes))
        del self._bytes[:position]

    def _data(self, stream: int, frame_flags: int, payload: bytearray) -> None:
        if frame_flags & self._PADDED:
            payload = payload[1:]
        if payload and stream not in self._started:
            self._started.add(stream)
            self.flags.append(payload[0] == 1)
