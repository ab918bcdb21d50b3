"""Which tokens are believed. Each forgery is one row, with the rule that refuses it."""

import hashlib
import hmac
import json
import time
from collections.abc import Iterator
from typing import Any

import jwt
import pytest

from apps.orgs import jwts
from apps.orgs.jwts import MAX_CHARACTERS, Claims, RefusedToken, Verifier
from tests.login.pool import (
    CLIENT,
    ISSUER,
    Clock,
    KeyServer,
    access,
    jwk,
    key_server,
    payload,
    private_key,
    public_pem,
    raw,
    segment,
    signed,
    verifier,
)

NOW = int(time.time())


@pytest.fixture(scope="module")
def keys() -> Iterator[KeyServer]:
    with key_server("first", "second") as server:
        yield server


@pytest.fixture(scope="module")
def believer(keys: KeyServer) -> Verifier:
    return verifier(keys)


def with_hmac(key: bytes) -> str:
    body = raw({"alg": "HS256", "kid": "first", "typ": "JWT"}, payload()).rsplit(".", 1)[0]
    return f"{body}.{segment(hmac.new(key, body.encode(), hashlib.sha256).digest())}"


def signed_text(said: bytes) -> str:
    """Sign bytes that no JSON writer would write."""
    return jwt.PyJWS().encode(said, private_key("first"), "RS256", headers={"kid": "first"})


def said_twice() -> str:
    text = json.dumps(payload())
    return signed_text((text[:-1] + ', "sub": "somebody-else"}').encode())


def exchanged(index: int) -> str:
    parts, others = signed().split("."), signed(payload(sub="somebody-else")).split(".")
    parts[index] = others[index]
    return ".".join(parts)


def altered(text: str) -> str:
    body, _, signature = text.rpartition(".")
    return f"{body}.{signature[:20]}{'A' if signature[20] != 'A' else 'B'}{signature[21:]}"


FORGERIES: dict[str, tuple[str, str]] = {
    "no signature": (raw({"alg": "none", "typ": "JWT"}, payload(), b""), "malformed"),
    "alg none with a signature": (raw({"alg": "none", "kid": "first"}, payload()), "wrong algorithm"),
    "alg NoNe": (raw({"alg": "NoNe", "kid": "first"}, payload()), "wrong algorithm"),
    "no alg": (raw({"kid": "first"}, payload()), "wrong algorithm"),
    "alg as a list": (raw({"alg": ["RS256"], "kid": "first"}, payload()), "wrong algorithm"),
    "HS256 with the public key as PEM": (with_hmac(public_pem("first")), "wrong algorithm"),
    "HS256 with the public key's modulus": (with_hmac(jwk("first")["n"].encode()), "wrong algorithm"),
    "HS256 with an empty key": (with_hmac(b""), "wrong algorithm"),
    "RS512": (jwt.encode(payload(), private_key("first"), "RS512", headers={"kid": "first"}), "wrong algorithm"),
    "PS256": (jwt.encode(payload(), private_key("first"), "PS256", headers={"kid": "first"}), "wrong algorithm"),
    "signed by a key of the forger's": (signed(key="forger", kid="first"), "wrong signature"),
    "signed by the pool's other key": (signed(key="second", kid="first"), "wrong signature"),
    "an unknown key": (signed(key="forger"), "unknown key"),
    "a key name as a path": (signed(kid="../../../dev/null"), "unknown key"),
    "a key name as SQL": (signed(kid="' OR '1'='1"), "unknown key"),
    "an empty key name": (signed(kid=""), "no key"),
    "a key name as a number": (raw({"alg": "RS256", "kid": 1}, payload()), "no key"),
    "a very long key name": (signed(kid="k" * 257), "no key"),
    "no key name": (jwt.encode(payload(), private_key("first"), "RS256"), "no key"),
    "jku": (signed(key="forger", kid="first", jku="http://127.0.0.1:1/keys"), "unknown header"),
    "jwk": (signed(key="forger", kid="first", jwk=jwk("forger")), "unknown header"),
    "x5u": (signed(key="forger", kid="first", x5u="http://127.0.0.1:1/cert"), "unknown header"),
    "x5c": (signed(key="forger", kid="first", x5c=["MIIB"]), "unknown header"),
    "crit": (signed(crit=["exp"], exp=1), "unknown header"),
    "a payload that is not encoded": (raw({"alg": "RS256", "kid": "first", "b64": False}, payload()), "unknown header"),
    "a type that is no JWT's": (signed(typ="JWE"), "unknown header"),
    "a huge header": (signed(junk="x" * 1024), "oversized header"),
    "alg said twice": (raw(b'{"alg":"RS256","alg":"none","kid":"first"}', payload()), "malformed"),
    "a header that is no object": (raw(["RS256"], payload()), "malformed"),
    "a header that is no JSON": (raw(b"{", payload()), "malformed"),
    "another token's payload": (exchanged(1), "wrong signature"),
    "another token's signature": (exchanged(2), "wrong signature"),
    "one character of the signature": (altered(signed()), "wrong signature"),
    "a claim said twice": (said_twice(), "malformed"),
    "a payload that is no object": (signed_text(b'["sub"]'), "malformed"),
    "a payload that is no JSON": (signed_text(b"\xff\xfe"), "malformed"),
    "a payload nested too deep": (signed_text(b'{"a":' * 9 + b"1" + b"}" * 9), "malformed"),
    "an integer of a thousand digits": (signed_text(b'{"exp":' + b"9" * 1000 + b"}"), "malformed"),
    "not a number": (signed_text(b'{"exp": NaN}'), "malformed"),
    "too long": (signed(payload(junk="x" * MAX_CHARACTERS)), "malformed"),
    "four parts": (signed() + ".x", "malformed"),
    "two parts": (signed().rsplit(".", 1)[0], "malformed"),
    "an empty part": ("..", "malformed"),
    "padding": (signed() + "==", "malformed"),
    "a line's end": (signed() + "\n", "malformed"),
    "letters beyond ASCII": (signed().replace("e", "é", 1), "malformed"),
    "a foreign issuer": (signed(payload(iss="https://evil.example.com")), "wrong issuer"),
    "another pool as issuer": (signed(payload(iss=ISSUER[:-1])), "wrong issuer"),
    "an issuer with a slash": (signed(payload(iss=f"{ISSUER}/")), "wrong issuer"),
    "no issuer": (signed(payload(iss=None)), "wrong issuer"),
    "another audience": (signed(payload(aud="another-client")), "wrong audience"),
    "our audience among others": (signed(payload(aud=[CLIENT, "another"])), "wrong audience"),
    "no audience": (signed(payload(aud=None)), "wrong audience"),
    "an ID token with client_id alone": (signed(payload(aud=None, client_id=CLIENT)), "wrong audience"),
    "an access token of another client": (signed(access(client_id="another-client")), "wrong audience"),
    "an access token with aud alone": (signed(access(client_id=None, aud=CLIENT)), "wrong audience"),
    "a refresh token": (signed(payload(token_use="refresh")), "wrong token_use"),
    "no token_use": (signed(payload(token_use=None)), "wrong token_use"),
    "expired": (signed(payload(iat=NOW - 7200, exp=NOW - 3600)), "expired"),
    "no expiry": (signed(payload(exp=None)), "malformed exp"),
    "an expiry as text": (signed(payload(exp=str(NOW + 3600))), "malformed exp"),
    "an expiry as a fraction": (signed(payload(exp=NOW + 3600.5)), "malformed exp"),
    "an expiry as true": (signed(payload(exp=True)), "malformed exp"),
    "an expiry beyond time": (signed(payload(exp=2**60)), "malformed exp"),
    "issued in the future": (signed(payload(iat=NOW + 3600, exp=NOW + 7200)), "not valid yet"),
    "no time of issue": (signed(payload(iat=None)), "malformed iat"),
    "not valid yet": (signed(payload(nbf=NOW + 3600)), "not valid yet"),
    "a malformed nbf": (signed(payload(nbf="soon")), "malformed nbf"),
    "no subject": (signed(payload(sub=None)), "no subject"),
    "an empty subject": (signed(payload(sub="")), "no subject"),
    "a subject that is no text": (raw({"alg": "RS256", "kid": "first"}, payload(sub=["a"])), "wrong signature"),
    "a very long subject": (signed(payload(sub="s" * 256)), "malformed sub"),
    "an organization that is no text": (signed(payload(**{"custom:orgId": ["a"]})), "malformed custom:orgId"),
    "a role that is no text": (signed(payload(**{"custom:userRole": {"a": 1}})), "malformed custom:userRole"),
    "an API key": ("lcp_aaaaaaaa_bbbb_cccc", "malformed"),
    "nothing": ("", "malformed"),
}


@pytest.mark.parametrize(("token", "reason"), FORGERIES.values(), ids=FORGERIES)
def test_a_forgery_is_refused(believer: Verifier, token: str, reason: str) -> None:
    before = believer.remembered()
    with pytest.raises(RefusedToken) as refused:
        believer.verify(token)
    assert refused.value.reason == reason
    assert believer.remembered() == before


HONEST = {
    "an ID token": signed(payload(sub="me")),
    "an ID token of the other key": signed(payload(sub="me"), key="second"),
    "an access token": signed(access(sub="me")),
    "an audience in a list of one": signed(payload(sub="me", aud=[CLIENT])),
    "a clock that is a little ahead": signed(payload(sub="me", iat=NOW + 5)),
    "nbf in the past": signed(payload(sub="me", nbf=NOW - 5)),
    "claims that nobody here knows": signed(payload(sub="me", **{"cognito:groups": ["a"], "x": {"y": [1]}})),
}


@pytest.mark.parametrize("token", HONEST.values(), ids=HONEST)
def test_an_honest_token_is_believed(believer: Verifier, token: str) -> None:
    assert believer.verify(token).subject == "me"
    assert believer.verify(token).subject == "me"


def test_a_token_is_what_it_says(believer: Verifier) -> None:
    ours = {"custom:orgId": "o", "custom:appId": "a", "custom:userRole": "admin", "nonce": "n", "name": "Jo"}
    said = payload(email_verified="true", **ours)
    claims = believer.verify(signed(said))
    assert (claims.organization, claims.application, claims.role, claims.nonce) == ("o", "a", "admin", "n")
    assert (claims.email, claims.email_verified, claims.name) == (said["email"], True, "Jo")
    assert not believer.verify(signed(payload(email_verified=False))).email_verified
    assert not believer.verify(signed(payload(email_verified="false"))).email_verified


def test_two_tokens_are_never_taken_for_each_other_though_they_share_a_beginning_and_an_end(
    believer: Verifier,
) -> None:
    """The header is the same, and so are the payload's first and last characters."""
    tokens = {name: signed(payload(sub=name, pad="x" * 500)) for name in ("a" * 36, "b" * 36)}
    for _ in range(2):
        assert {believer.verify(token).subject for token in tokens.values()} == set(tokens)
    assert len({jwts.name_of(token) for token in tokens.values()}) == 2
    mixed = "".join(next(iter(tokens.values()))[:-10]) + tokens["b" * 36][-10:]
    with pytest.raises(RefusedToken):
        believer.verify(mixed)


def test_a_remembered_token_ends_with_its_expiry(keys: KeyServer) -> None:
    clock = Clock(NOW)
    believer = verifier(keys, tokens=clock)
    token = signed(payload(iat=NOW, exp=NOW + 60))
    assert isinstance(believer.verify(token), Claims)
    clock.now += 60 + jwts.LEEWAY_SECONDS - 1
    believer.verify(token)
    clock.now += 1
    for _ in range(2):
        with pytest.raises(RefusedToken, match="expired"):
            believer.verify(token)
    assert believer.remembered() == 0


def test_what_is_remembered_is_bounded(keys: KeyServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jwts, "MAX_REMEMBERED", 3)
    believer = verifier(keys)
    tokens = [signed(payload(sub=str(number))) for number in range(5)]
    for token in tokens:
        believer.verify(token)
    assert believer.remembered() == 3
    assert [believer.verify(token).subject for token in tokens] == list("01234")


def test_a_refusal_shows_nothing_of_the_token(believer: Verifier) -> None:
    shown: list[Any] = []
    for token, _ in FORGERIES.values():
        with pytest.raises(RefusedToken) as refused:
            believer.verify(token)
        shown.append(str(refused.value))
    assert not any("@example.com" in text or "somebody-else" in text or "eyJ" in text for text in shown)
