"""What a cloud machine asks for its role's keys (IMDSv2), on loopback; the keys are those of a real store's STS."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from minio.credentials import Credentials

ROLE = "linewatch-replica"
TOKEN = "imds-" + "token"
BEFORE_ITS_END_S = 10
"""The SDK asks anew so long before keys end."""


class MetadataServer:
    """lasts_s: keys are said to last so long. role: none where the machine has no role."""

    def __init__(self, keys: Callable[[], Credentials]) -> None:
        self.lasts_s, self.role, self.given = 3600.0, ROLE, 0
        self._keys = keys
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    @contextmanager
    def running(self) -> Iterator["MetadataServer"]:
        thread = threading.Thread(target=self._server.serve_forever, name="metadata", daemon=True)
        thread.start()
        try:
            yield self
        finally:
            self._server.shutdown()
            self._server.server_close()
            thread.join(10)

    def _document(self) -> str:
        keys = self._keys()
        self.given += 1
        ends = datetime.now(UTC) + timedelta(seconds=self.lasts_s)
        named = {"AccessKeyId": keys.access_key, "SecretAccessKey": keys.secret_key, "Token": keys.session_token}
        return json.dumps({"Code": "Success", **named, "Expiration": ends.strftime("%Y-%m-%dT%H:%M:%SZ")})

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_PUT(self) -> None:
                self._answer(200 if self.path == "/latest/api/token" else 404, TOKEN)

            def do_GET(self) -> None:
                where = "/latest/meta-data/iam/security-credentials/"
                if self.headers.get("x-aws-ec2-metadata-token") != TOKEN:
                    self._answer(401, "")
                elif not server.role or not self.path.startswith(where):
                    self._answer(404, "")
                else:
                    self._answer(200, server._document() if self.path == where + server.role else server.role)

            def _answer(self, status: int, said: str) -> None:
                self.send_response(status)
                self.send_header("content-length", str(len(said)))
                self.end_headers()
                self.wfile.write(said.encode())

            def log_message(self, *_: object) -> None:
                """Nothing on the tests' terminal."""

        return Handler
