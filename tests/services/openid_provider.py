"""A real OpenID provider in the place of Cognito's hosted login: npm's `oidc-provider`, where Node.js is."""

import json
import subprocess
from pathlib import Path
from typing import Any

import httpx

from tests.services.npm import install

FOLDER = Path(__file__).parent / "openid"
POOL = "eu-central-1_Login1234"
CLIENT, SECRET = "client-of-the-login", "secret-of-the-login-client"


class OpenIdProvider:
    """Runs between `start` and `stop` on a free port of this machine."""

    def __init__(self) -> None:
        self.issuer = f"https://cognito-idp.eu-central-1.amazonaws.com/{POOL}"
        self.url = ""
        self._process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        """Start it. Skips the test where Node.js, or the package and a registry to get it from, are absent."""
        install(FOLDER, "npm's oidc-provider")
        names = {"issuer": self.issuer, "pool": POOL, "client_id": CLIENT, "client_secret": SECRET}
        self._process = subprocess.Popen(
            ["node", "provider.mjs", json.dumps(names)],
            cwd=FOLDER,
            stdin=subprocess.PIPE,  # its end ends the provider, however this process ends
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        assert self._process.stdout is not None
        port = self._process.stdout.readline().strip()
        assert port.isdigit(), "The OpenID provider did not start."
        self.url = f"http://127.0.0.1:{port}"

    def stop(self) -> None:
        """End it."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait(10)

    def settings(self) -> dict[str, str]:
        """Return what the control plane is told of it."""
        return {
            "COGNITO_USER_POOL_ID": POOL,
            "COGNITO_CLIENT_ID": CLIENT,
            "COGNITO_CLIENT_SECRET": SECRET,
            "COGNITO_DOMAIN": self.url,
            "COGNITO_REDIRECT_URI": "",
            "AWS_ENDPOINT_URL": self.url,
        }

    def put(self, subject: str, claims: dict[str, Any], forged: dict[str, Any] | None = None) -> None:
        """Make an account, or change it. ``forged`` says what its ID tokens lie about."""
        body = {"claims": claims, "forged": forged}
        httpx.put(f"{self.url}/accounts/{subject}", json=body, timeout=10).raise_for_status()
