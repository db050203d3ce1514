"""Between a client and an S3 server: answers late, or refuses, as it is told."""

import http.client
import socket
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

PER_HOP = ("connection", "keep-alive", "transfer-encoding", "content-length")


class S3Proxy:
    """delay_s: how much later each answer comes. refused: methods that are never passed on, and answered by refusal:
    status, code and message.

    most_at_once: how many requests of each method were under way side by side, at most.
    """

    def __init__(self, upstream: str) -> None:
        self.upstream = upstream
        self.delay_s = 0.0
        self.refused: frozenset[str] = frozenset()
        self.refusal = (403, "AccessDenied", "Access Denied.")
        self.answers: Counter[tuple[str, int]] = Counter()
        self.most_at_once: Counter[str] = Counter()
        self._at_once: Counter[str] = Counter()
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._connections: set[socket.socket] = set()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def serve(self) -> None:
        self._server.serve_forever(poll_interval=0.05)

    def close(self) -> None:
        self._closing.set()
        self._server.shutdown()
        self._server.server_close()
        with self._lock:
            for connection in self._connections:
                with suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)

    def _answer(self, request: BaseHTTPRequestHandler) -> None:
        method = request.command
        body = request.rfile.read(int(request.headers.get("content-length", 0)))
        with self._lock:
            self._at_once[method] += 1
            self.most_at_once[method] = max(self.most_at_once[method], self._at_once[method])
        try:
            if method in self.refused:
                status, headers, data = self._refusal()
            else:
                status, headers, data = self._forwarded(request, body)
            self._closing.wait(self.delay_s)
        finally:
            with self._lock:
                self._at_once[method] -= 1
                self.answers[method, status] += 1
        length = dict(headers).get("Content-Length", "0") if method == "HEAD" else str(len(data))
        request.send_response_only(status)
        for name, value in headers:
            if name.lower() not in PER_HOP:
                request.send_header(name, value)
        request.send_header("Content-Length", length)
        request.end_headers()
        if method != "HEAD":
            request.wfile.write(data)

    def _refusal(self) -> tuple[int, list[tuple[str, str]], bytes]:
        status, code, message = self.refusal
        error = f"<Error><Code>{code}</Code><Message>{message}</Message><Resource>/</Resource></Error>"
        return status, [("Content-Type", "application/xml")], f'<?xml version="1.0"?>{error}'.encode()

    def _forwarded(self, request: BaseHTTPRequestHandler, body: bytes) -> tuple[int, list[tuple[str, str]], bytes]:
        """With its own Host header, which is part of what was signed."""
        connection = http.client.HTTPConnection(self.upstream, timeout=30)
        try:
            connection.putrequest(request.command, request.path, skip_host=True, skip_accept_encoding=True)
            for name, value in request.headers.items():
                connection.putheader(name, value)
            connection.endheaders(body)
            response = connection.getresponse()
            return response.status, response.getheaders(), response.read()
        except OSError:
            return 502, [], b""
        finally:
            connection.close()

    def _handler(proxy) -> type[BaseHTTPRequestHandler]:
        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def setup(self) -> None:
                super().setup()
                with proxy._lock:
                    proxy._connections.add(self.connection)

            def finish(self) -> None:
                with proxy._lock:
                    proxy._connections.discard(self.connection)
                with suppress(OSError):
                    super().finish()

            def do_GET(self) -> None:
                with suppress(OSError):
                    proxy._answer(self)

            do_PUT = do_HEAD = do_DELETE = do_POST = do_GET

            def log_message(self, *_: object) -> None:
                pass

        return Handler


@contextmanager
def s3_proxy(upstream: str) -> Iterator[S3Proxy]:
    """Before the server at ``upstream`` (host:port)."""
    proxy = S3Proxy(upstream)
    thread = threading.Thread(target=proxy.serve, name="s3-proxy", daemon=True)
    thread.start()
    try:
        yield proxy
    finally:
        proxy.close()
        thread.join(10)
