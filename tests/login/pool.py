"""A user pool of our own: its keys on a real HTTP server, and tokens of it, honest or forged."""

import base64
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from uuid import uuid4

import jwt
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from apps.orgs.cognito import IdentityProvider
from apps.orgs.jwks import KeySet, fetch
from apps.orgs.jwts import Verifier

CLIENT = "client-of-the-tests"
POOL = "eu-central-1_Tests1234"
ISSUER = f"https://cognito-idp.eu-central-1.amazonaws.com/{POOL}"


@cache
def private_key(name: str) -> RSAPrivateKey:
    return generate_private_key(65537, 1024 if name == "short" else 2048)


def public_pem(name: str) -> bytes:
    return private_key(name).public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def jwk(name: str, **fields: Any) -> dict[str, Any]:
    numbers = private_key(name).public_key().public_numbers()
    return {"kty": "RSA", "use": "sig", "alg": "RS256", "kid": name} | {
        "n": number_text(numbers.n),
        "e": number_text(numbers.e),
        **fields,
    }


def number_text(number: int) -> str:
    return segment(number.to_bytes((number.bit_length() + 7) // 8, "big"))


def segment(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def payload(**claims: Any) -> dict[str, Any]:
    """What an ID token says; ``None`` leaves a claim out."""
    now = int(time.time())
    said = {
        "iss": ISSUER,
        "sub": str(uuid4()),
        "aud": CLIENT,
        "token_use": "id",
        "iat": now,
        "exp": now + 3600,
        "email": f"{uuid4().hex[:12]}@example.com",
        "email_verified": True,
        **claims,
    }
    return {name: value for name, value in said.items() if value is not None}


def access(**claims: Any) -> dict[str, Any]:
    """What an access token says."""
    fields = {"aud": None, "client_id": CLIENT, "token_use": "access", "email": None, "email_verified": None}
    return payload(**{**fields, **claims})


def signed(said: dict[str, Any] | None = None, key: str = "first", **header: Any) -> str:
    """Sign a payload as the pool does."""
    return jwt.encode(said or payload(), private_key(key), "RS256", headers={"kid": key, **header})


def raw(header: Any, said: Any, signature: bytes = b"signature") -> str:
    """Put a token together of whatever parts."""
    parts = (part if isinstance(part, bytes) else json.dumps(part).encode() for part in (header, said))
    return ".".join([*map(segment, parts), segment(signature)])


class KeyServer:
    """Serves a set of keys and counts how often it is asked."""

    def __init__(self, *names: str) -> None:
        self.asked = 0
        self.status = 200
        self.delay = 0.0
        self.body = b""
        self.show(*names)
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.asked += 1
                time.sleep(outer.delay)
                self.send_response(outer.status)
                if outer.status == 302:
                    self.send_header("Location", self.path)
                self.send_header("Content-Length", str(len(outer.body)))
                self.end_headers()
                self.wfile.write(outer.body)

            def log_message(self, *args: Any) -> None:
                """Nothing: a test run is no place for an access log."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.base = f"http://127.0.0.1:{self._server.server_port}"
        self.url = f"{self.base}/{POOL}/.well-known/jwks.json"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()

    def show(self, *names: str) -> None:
        self.body = json.dumps({"keys": [jwk(name) for name in names]}).encode()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@contextmanager
def key_server(*names: str) -> Iterator[KeyServer]:
    server = KeyServer(*names)
    try:
        yield server
    finally:
        server.stop()


class Clock:
    """A clock that a test moves."""

    def __init__(self, now: float) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


def verifier(server: KeyServer, **clocks: Any) -> Verifier:
    """A verifier of the pool's tokens, with its keys from the server."""
    provider = IdentityProvider(ISSUER, server.url, CLIENT, "", "", "")
    keys = KeySet(lambda: fetch(server.url), **({"clock": clocks["keys"]} if "keys" in clocks else {}))
    return Verifier(provider, keys, **({"clock": clocks["tokens"]} if "tokens" in clocks else {}))
