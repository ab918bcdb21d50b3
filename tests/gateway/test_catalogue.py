"""Asking a provider for its models with the vendor's own SDK, within the gateway's bounds."""

from collections.abc import Iterator
from ipaddress import ip_network

import pytest

from apps.gateway import catalogue
from apps.gateway.catalogue import list_models
from apps.gateway.providers.base import Endpoint, Fault, UpstreamError
from tests.mock_upstream import Behaviour, MockUpstream

LOOPBACK = [ip_network("127.0.0.0/8")]
SECRET = "sk-of-the-tests-4711"


@pytest.fixture(scope="module")
def upstream() -> Iterator[MockUpstream]:
    with MockUpstream() as served:
        yield served


@pytest.fixture(autouse=True)
def as_new(upstream: MockUpstream, monkeypatch: pytest.MonkeyPatch) -> None:
    upstream.models, upstream.key, upstream.listing = ["b", "a", "a"], SECRET, Behaviour()
    upstream.listed.clear()
    for name in ("OPENAI_ORG_ID", "OPENAI_PROJECT_ID", "OPENAI_ADMIN_KEY", "HTTP_PROXY", "ANTHROPIC_AUTH_TOKEN"):
        monkeypatch.setenv(name, "http://127.0.0.1:1/of-the-operator")


def ask(upstream: MockUpstream, provider: str = "openai", base_url: str = "", secret: str = SECRET) -> list[str]:
    endpoint = Endpoint(provider, base_url or upstream.base_url, secret)
    return list_models(endpoint, LOOPBACK, simulated=True)


@pytest.mark.parametrize("provider", ["openai", "openai_compatible", "anthropic"])
def test_a_vendors_sdk_lists_the_models_and_tells_the_provider_nothing_of_the_operator(
    upstream: MockUpstream, provider: str
) -> None:
    assert ask(upstream, provider) == ["a", "b"]
    (headers,) = upstream.listed
    assert SECRET in (headers.get("authorization", "").removeprefix("Bearer "), headers.get("x-api-key"))
    assert "of-the-operator" not in str(headers)
    assert headers["host"] == f"127.0.0.1:{upstream.port}"


@pytest.mark.parametrize(
    ("listing", "fault"),
    [
        (Behaviour(status=401), Fault.CREDENTIAL),
        (Behaviour(status=403), Fault.CREDENTIAL),
        (Behaviour(status=404), Fault.REFUSED),
        (Behaviour(status=429), Fault.REFUSED),
        (Behaviour(status=503), Fault.SERVER),
        (Behaviour(redirect="http://127.0.0.1:1/"), Fault.REFUSED),
        (Behaviour(breaks="headers"), Fault.CONNECT),
        *((Behaviour(garbage=name), Fault.GARBAGE) for name in ("text", "html", "list", "shape", "empty", "gzip_bomb")),
        (Behaviour(garbage="huge"), Fault.GARBAGE),
        (Behaviour(garbage="not_http"), Fault.CONNECT),
    ],
    ids=lambda given: f"{given.garbage}{given.breaks}{given.status}" if isinstance(given, Behaviour) else given,
)
def test_what_goes_wrong_is_said_in_words_and_without_the_secret(
    upstream: MockUpstream, listing: Behaviour, fault: Fault
) -> None:
    upstream.listing = listing
    with pytest.raises(UpstreamError) as failed:
        ask(upstream)
    assert failed.value.fault is fault
    assert SECRET not in str(failed.value) + repr(failed.value.details)
    assert str(failed.value).endswith(".")


def test_a_wrong_key_is_told_from_a_wrong_address(upstream: MockUpstream) -> None:
    with pytest.raises(UpstreamError, match="refuses this key") as failed:
        ask(upstream, secret="sk-wrong-and-quoted-back")
    assert "sk-wrong" not in str(failed.value)
    with pytest.raises(UpstreamError, match="could not be reached"):
        ask(upstream, base_url="http://127.0.0.1:9/v1")
    with pytest.raises(UpstreamError, match="no address"):
        ask(upstream, base_url="https://llm.invalid/v1")


@pytest.mark.parametrize("base_url", ["https://169.254.169.254/v1", "https://10.0.0.1", "http://example.com/v1"])
def test_an_address_that_must_not_be_reached_is_not(upstream: MockUpstream, base_url: str) -> None:
    with pytest.raises(UpstreamError) as failed:
        ask(upstream, base_url=base_url)
    assert failed.value.fault in (Fault.ADDRESS, Fault.CONNECT)  # a name may have no address here
    with pytest.raises(UpstreamError, match="https") as failed:
        list_models(Endpoint("openai", upstream.base_url, SECRET), (), simulated=True)
    assert failed.value.fault is Fault.ADDRESS
    assert upstream.listed == []


def test_a_provider_that_falls_silent_holds_nobody(upstream: MockUpstream, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalogue, "SECONDS", 0.3)
    upstream.listing = Behaviour(hang="headers")
    with pytest.raises(UpstreamError, match="in time"):
        ask(upstream)


def test_no_more_are_asked_at_once_than_leave_threads_for_pages(upstream: MockUpstream) -> None:
    for _ in range(catalogue.MOST_AT_ONCE):
        assert catalogue._places.acquire(blocking=False)
    try:
        with pytest.raises(UpstreamError, match="right now"):
            ask(upstream)
    finally:
        for _ in range(catalogue.MOST_AT_ONCE):
            catalogue._places.release()
    assert ask(upstream) == ["a", "b"]


def test_the_simulated_provider_is_asked_nothing(upstream: MockUpstream) -> None:
    assert "sim-echo" in ask(upstream, "simulated")
    with pytest.raises(UpstreamError, match="switched off"):
        list_models(Endpoint("simulated", ""), LOOPBACK, simulated=False)
