"""A token server: RS256 tokens for client credentials, on loopback, and the key to check them with."""

import base64
import json
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote_plus

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa

AUDIENCE = "kafka"


def _b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


class TokenServer:
    """clients: id to secret. What a test sets while it runs: how long tokens last, and whom they are for."""

    def __init__(self, clients: dict[str, str], tls: ssl.SSLContext | None = None) -> None:
        self.clients, self.lasts_s, self.audience = clients, 300.0, AUDIENCE
        self.given = 0
        self.asked: list[dict[str, list[str]]] = []
        self.key = self._key = rsa.generate_private_key(65537, 2048)
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        if tls:
            self._server.socket = tls.wrap_socket(self._server.socket, server_side=True)
        self.url = f"{'https' if tls else 'http'}://127.0.0.1:{self._server.server_port}"

    def token(self, client: str) -> str:
        """One whose `exp` is as it is set, also in the past."""
        now = time.time()
        claims = {
            "sub": client,
            "aud": self.audience,
            "iss": self.url,
            "iat": int(now) - 60,
            "exp": int(now + self.lasts_s),
        }
        claims["scope"] = "plant"
        head = {"alg": "RS256", "typ": "JWT", "kid": "plant"}
        signed = ".".join(_b64(json.dumps(part).encode()) for part in (head, claims))
        return f"{signed}.{_b64(self.key.sign(signed.encode(), padding.PKCS1v15(), hashes.SHA256()))}"

    def jwks(self) -> dict[str, Any]:
        numbers = self._key.public_key().public_numbers()
        n, e = (_b64(one.to_bytes((one.bit_length() + 7) // 8, "big")) for one in (numbers.n, numbers.e))
        return {"keys": [{"kty": "RSA", "use": "sig", "alg": "RS256", "kid": "plant", "n": n, "e": e}]}

    @contextmanager
    def running(self) -> Iterator["TokenServer"]:
        thread = threading.Thread(target=self._server.serve_forever, name="tokens", daemon=True)
        thread.start()
        try:
            yield self
        finally:
            self._server.shutdown()
            self._server.server_close()
            thread.join(10)

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        tokens = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self._answer(200 if self.path == "/jwks" else 404, tokens.jwks())

            def do_POST(self) -> None:
                form = parse_qs(self.rfile.read(int(self.headers["content-length"])).decode())
                tokens.asked.append(form)
                account = base64.b64decode(self.headers.get("authorization", "").removeprefix("Basic ")).decode()
                client, _, secret = (unquote_plus(one) for one in account.partition(":"))
                if self.path != "/token" or form.get("grant_type") != ["client_credentials"]:
                    self._answer(400, {"error": "invalid_request"})
                elif not secret or tokens.clients.get(client) != secret:
                    self._answer(401, {"error": "invalid_client"})
                else:
                    tokens.given += 1
                    said = {"access_token": tokens.token(client), "token_type": "Bearer", "expires_in": tokens.lasts_s}
                    self._answer(200, said)

            def _answer(self, status: int, said: dict[str, Any]) -> None:
                body = json.dumps(said).encode()
                self.send_response(status)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                """Nothing on the tests' terminal."""

        return Handler
