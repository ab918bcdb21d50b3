"""What the settings accept as secrets and addresses."""

import base64

import pytest
from django.core.exceptions import ImproperlyConfigured

from controlplane import secrets

KEY = base64.b64encode(bytes(range(32))).decode()


@pytest.mark.parametrize(
    ("value", "url"),
    [
        ("", ""),
        ("localhost:6379", "redis://localhost:6379/0"),
        ("rediss://cache.example:6380/2", "rediss://cache.example:6380/2"),
        ("unix:///run/redis.sock", "unix:///run/redis.sock"),
    ],
)
def test_a_bare_host_and_port_is_a_redis_url_too(value, url):
    assert secrets.redis_url(value) == url


def test_a_key_ring_keeps_its_order_since_the_first_key_is_used_for_new_values():
    ring = secrets.parse_key_ring(f"new:{KEY}, old:{KEY}", "KEY_PEPPERS")
    assert list(ring) == ["new", "old"]
    assert ring["new"] == bytes(range(32))


@pytest.mark.parametrize("text", ["k:c2hvcnQ=", f":{KEY}", KEY, "k:not base64!"])
def test_a_useless_key_is_refused_by_the_name_of_its_variable_alone(text):
    with pytest.raises(ImproperlyConfigured) as refused:
        secrets.parse_key_ring(text, "KEY_PEPPERS")
    assert "KEY_PEPPERS" in str(refused.value)
    assert text not in str(refused.value)


def test_the_secrets_of_a_developers_machine_are_made_once_and_for_its_owner_alone(tmp_path):
    first = secrets.development_secrets(tmp_path)
    assert secrets.development_secrets(tmp_path) == first
    assert (tmp_path / "secrets.json").stat().st_mode & 0o777 == 0o600
