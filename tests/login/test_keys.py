"""The identity provider's keys: fetched within bounds, however many tokens name unknown ones."""

import json
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from apps.orgs import jwks
from apps.orgs.jwks import (
    HOLD_SECONDS,
    INTERVAL_SECONDS,
    RETRY_SECONDS,
    KeySet,
    SigningKeysUnavailable,
    fetch,
    parse_keys,
)
from apps.orgs.jwts import RefusedToken
from tests.login.pool import Clock, jwk, key_server, payload, signed, verifier


def test_a_flood_of_unknown_keys_asks_once_in_an_interval() -> None:
    clock = Clock(1000.0)
    with key_server("first") as server:
        believer = verifier(server, keys=clock)
        believer.verify(signed())
        for round_ in range(1, 4):
            clock.now += INTERVAL_SECONDS
            for number in range(50):
                with pytest.raises(RefusedToken, match="unknown key"):
                    believer.verify(signed(kid=f"unknown-{round_}-{number}"))
            assert server.asked == 1 + round_


def test_a_new_key_of_the_provider_is_found_after_the_interval_and_a_removed_one_ends() -> None:
    clock = Clock(1000.0)
    with key_server("first") as server:
        believer = verifier(server, keys=clock)
        believer.verify(signed())
        server.show("second")
        with pytest.raises(RefusedToken):
            believer.verify(signed(key="second"))
        clock.now += INTERVAL_SECONDS
        assert believer.verify(signed(key="second"))
        with pytest.raises(RefusedToken):
            believer.verify(signed(payload(sub="me")))


def test_without_the_providers_keys_nothing_is_believed_and_it_recovers() -> None:
    clock = Clock(1000.0)
    with key_server("first") as server:
        believer = verifier(server, keys=clock)
        server.status = 500
        for _ in range(20):
            with pytest.raises(SigningKeysUnavailable):
                believer.verify(signed())
        assert server.asked == 1
        server.status = 200
        clock.now += RETRY_SECONDS
        assert believer.verify(signed())


def test_known_keys_hold_while_the_provider_is_away_but_not_for_ever() -> None:
    clock = Clock(1000.0)
    with key_server("first") as server:
        believer = verifier(server, keys=clock)
        believer.verify(signed())
        server.status = 500
        clock.now += HOLD_SECONDS - 1
        assert believer.verify(signed())
        with pytest.raises(SigningKeysUnavailable):
            believer.verify(signed(kid="unknown"))
        clock.now += 1
        with pytest.raises(SigningKeysUnavailable):
            believer.verify(signed())


BODIES = {
    "no JSON": b"<html>",
    "no keys": b'{"keys": []}',
    "no list": b'{"keys": {}}',
    "no object": b"[]",
    "too many keys": json.dumps({"keys": [jwk("first", kid=str(number)) for number in range(33)]}).encode(),
    "one name twice": json.dumps({"keys": [jwk("first"), jwk("second", kid="first")]}).encode(),
    "a key said twice": b'{"keys": [], "keys": []}',
    "a symmetric key": json.dumps({"keys": [{"kty": "oct", "kid": "first", "k": "c2VjcmV0"}]}).encode(),
    "a key for encryption": json.dumps({"keys": [jwk("first", use="enc")]}).encode(),
    "a key for another algorithm": json.dumps({"keys": [jwk("first", alg="RS512")]}).encode(),
    "a short key": json.dumps({"keys": [jwk("short")]}).encode(),
    "an even exponent of two": json.dumps({"keys": [jwk("first", e="Ag")]}).encode(),
    "numbers that are none": json.dumps({"keys": [jwk("first", n=7, e="!")]}).encode(),
    "a name that is none": json.dumps({"keys": [jwk("first", kid=7)]}).encode(),
    "too many bytes": b'{"keys": [' + b" " * jwks.MAX_BYTES + b"]}",
}


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
def test_what_is_no_set_of_keys_is_none(body: bytes) -> None:
    with key_server() as server:
        server.body = body
        keys = KeySet(lambda: fetch(server.url))
        with pytest.raises(SigningKeysUnavailable):
            keys.find("first")


def test_of_mixed_keys_those_for_signatures_are_taken() -> None:
    mixed = {"keys": [jwk("first"), jwk("second", use="enc"), {"kty": "EC", "kid": "third"}, "nonsense"]}
    assert list(parse_keys(json.dumps(mixed).encode())) == ["first"]


def test_a_redirect_is_not_followed() -> None:
    with key_server("first") as server:
        server.status = 302
        with pytest.raises(ValueError, match="302"):
            fetch(server.url)
        assert server.asked == 1


def test_a_slow_provider_holds_up_one_thread_and_those_who_know_no_key_share_its_answer() -> None:
    with key_server("first") as server:
        server.delay = 0.3
        believer = verifier(server)
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(believer.verify, [signed() for _ in range(16)]))
        assert server.asked == 1


def test_while_one_asks_for_an_unknown_key_others_are_not_held_up() -> None:
    asking, answered, clock = threading.Event(), threading.Event(), Clock(1000.0)
    document = json.dumps({"keys": [jwk("first")]}).encode()

    def ask() -> bytes:
        if asked:
            asking.set()
            answered.wait(10)
        asked.append(1)
        return document

    asked: list[int] = []
    keys = KeySet(ask, clock)
    assert keys.find("first")
    clock.now += INTERVAL_SECONDS
    with ThreadPoolExecutor(1) as pool:
        slow = pool.submit(keys.find, "unknown")
        asking.wait(10)
        assert keys.find("first")
        with pytest.raises(SigningKeysUnavailable):
            keys.find("another")
        answered.set()
        assert slow.result() is None
