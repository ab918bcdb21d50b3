"""The login as a browser does it, without one: Django's client on our side, an HTTP client on the provider's."""

from typing import Any
from urllib.parse import parse_qs, urlsplit
from uuid import uuid4

import httpx
from django.test import Client

from apps.orgs.models import Application, Identity, Organization, User
from tests.services.openid_provider import OpenIdProvider

HOST = "127.0.0.1:8123"


class Visitor:
    """A person with a browser and an account at the provider, and an organization that it names."""

    def __init__(self, provider: OpenIdProvider, role: str = "developer", **claims: Any) -> None:
        self.provider = provider
        self.organization = Organization.objects.create(name=f"house {uuid4()}")
        self.application = Application.objects.create(organization=self.organization, name="app")
        self.subject = f"person-{uuid4().hex[:12]}"
        self.email = f"{self.subject}@example.com"
        self.claims = {
            "email": self.email,
            "email_verified": True,
            "custom:orgId": str(self.organization.pk),
            "custom:appId": str(self.application.pk),
            "custom:userRole": role,
        }
        self.change(**claims)
        self.ours = Client(headers={"host": HOST})
        self.theirs = httpx.Client(follow_redirects=False, timeout=10)

    def change(self, forged: dict[str, Any] | None = None, **claims: Any) -> None:
        """Have the provider say something else from now on; ``None`` leaves a claim out."""
        self.claims |= claims
        said = {name: value for name, value in self.claims.items() if value is not None}
        self.provider.put(self.subject, said, forged)

    def begin(self, target: str = "") -> str:
        """Begin a login here; return the provider's address."""
        answer = self.ours.get("/oauth2/login", {"next": target} if target else {})
        assert answer.status_code == 302, answer.status_code
        return str(answer.url)

    def log_in_there(self, address: str) -> str:
        """Log in at the provider; return the address that it sends the browser back to."""
        for _ in range(6):
            answer = self.theirs.get(address)
            if answer.status_code == 200:
                answer = self.theirs.post(address, data={"login": self.subject})
            address = str(httpx.URL(address).join(answer.headers["location"]))
            if urlsplit(address).path == "/oauth2/idpresponse":
                return address
        raise AssertionError("The provider does not come to an end.")

    def come_back(self, address: str) -> Any:
        """Follow the provider's redirect."""
        parts = urlsplit(address)
        assert parts.netloc == HOST
        return self.ours.get(f"{parts.path}?{parts.query}")

    def log_in(self, target: str = "") -> Any:
        """Do it all; return the last answer."""
        return self.come_back(self.log_in_there(self.begin(target)))

    def is_in(self) -> bool:
        """Whether the admin opens."""
        return bool(self.ours.get("/admin/").status_code == 200)

    @property
    def user(self) -> User:
        return Identity.objects.get(subject=self.subject).user


def query(address: str) -> dict[str, str]:
    """Return the parameters of an address."""
    return {name: values[0] for name, values in parse_qs(urlsplit(address).query).items()}
