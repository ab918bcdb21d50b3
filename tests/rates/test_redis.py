"""The store in Redis: its keys, its connection, and many processes."""

import asyncio
import datetime
import ipaddress
import ssl
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from apps.policies.rates.base import BUCKETS_IN_A_WINDOW, RatesUnavailable
from apps.policies.rates.connection import Connections
from apps.policies.rates.redis import RedisRateStore
from tests.rates.conftest import HOLD_SECONDS, concurrent_limit, requests_limit, tokens_limit

pytestmark = pytest.mark.anyio

ROOT = Path(__file__).parents[2]


@pytest.fixture
async def redis(redis_server):
    """A connection to look at Redis with."""
    connections = Connections(redis_server.url, 10.0, 10.0)
    yield connections
    await connections.close()


async def test_every_key_expires_and_carries_the_prefix_as_hash_tag(redis_store, redis, prefix):
    limits = [requests_limit(5, 3600.0), tokens_limit(100), concurrent_limit(2)]
    await redis_store.take("a", limits, 10, HOLD_SECONDS)
    await redis_store.take("b", limits, 10, HOLD_SECONDS)
    await redis_store.release("b", limits, 10, 20)
    await redis_store.give_back("c", limits, 10)
    await redis_store.peek(limits, 10)
    keys = await redis.call("KEYS", f"*{prefix}*")
    assert len(keys) == 4
    for key in keys:
        assert key.startswith(f"{{{prefix}}}:".encode())
        assert 0 < await redis.call("PTTL", key) <= 3600_000 * (BUCKETS_IN_A_WINDOW + 2) / BUCKETS_IN_A_WINDOW + 1000


async def test_a_shorter_hold_does_not_cut_a_longer_one_short(redis_store):
    limit = concurrent_limit(5)
    await redis_store.take("long", [limit], 0, HOLD_SECONDS)
    await redis_store.take("short", [limit], 0, 0.01)
    # Longer than the second by which a key outlives what it holds.
    await asyncio.sleep(1.1)
    assert (await redis_store.peek([limit], 0))[0].remaining == 4


async def test_a_windows_string_stays_bounded(redis_store, redis, prefix):
    limit = requests_limit(10**9, 0.05)
    for number in range(3000):
        await redis_store.take(str(number), [limit], 0, 1.0)
    (key,) = await redis.call("KEYS", f"*{prefix}*:requests:*")
    assert await redis.call("STRLEN", key) <= 40 + 16 * (BUCKETS_IN_A_WINDOW + 2)


async def test_a_refund_finds_its_bucket_among_many(redis_store):
    limit = tokens_limit(10**6)
    for number in range(400):
        await redis_store.take(str(number), [limit], 10 + number, HOLD_SECONDS)
        await asyncio.sleep(0.0005)
    for number in range(0, 400, 3):
        await redis_store.give_back(str(number), [limit], 10 + number)
    left = sum(10 + number for number in range(400) if number % 3)
    assert (await redis_store.peek([limit], 0))[0].remaining == 10**6 - left


async def test_scripts_that_redis_forgot_are_sent_again(redis_store, redis):
    limits = [requests_limit(5)]
    await redis_store.take("a", limits, 0, HOLD_SECONDS)
    await redis.call("SCRIPT", "FLUSH")
    assert (await redis_store.take("b", limits, 0, HOLD_SECONDS)).readings[0].remaining == 3


async def test_counts_that_redis_forgot_begin_empty_and_what_ends_after_it_does_no_harm(redis_store, redis, prefix):
    limits = [requests_limit(2), tokens_limit(100), concurrent_limit(2)]
    for name in "ab":
        assert (await redis_store.take(name, limits, 40, HOLD_SECONDS)).allowed
    await redis.call("DEL", *await redis.call("KEYS", f"*{prefix}*"))
    verdict = await redis_store.take("c", limits, 40, HOLD_SECONDS)
    assert [reading.remaining for reading in verdict.readings] == [1, 60, 1]
    await redis_store.release("a", limits, 40, 90)
    await redis_store.give_back("b", limits, 40)
    assert [reading.remaining for reading in await redis_store.peek(limits, 0)] == [1, 60, 1]
    assert not verdict.degraded


async def test_a_connection_that_redis_closed_is_opened_again_unnoticed(own_redis_server):
    store = RedisRateStore(own_redis_server.url, timeout_seconds=10.0, connect_timeout_seconds=10.0)
    redis = Connections(own_redis_server.url, 10.0, 10.0)
    await store.take("a", [requests_limit(5)], 0, HOLD_SECONDS)
    await redis.call("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
    assert (await store.take("b", [requests_limit(5)], 0, HOLD_SECONDS)).readings[0].remaining == 3
    await store.close()
    await redis.close()


async def test_a_password_and_a_database_in_the_url_are_used(own_redis_server):
    redis = Connections(own_redis_server.url, 10.0, 10.0)
    await redis.call("CONFIG", "SET", "requirepass", "open sesame")
    address = f"127.0.0.1:{own_redis_server.port}"
    store = RedisRateStore(f"redis://:open%20sesame@{address}/3", timeout_seconds=10.0)
    await store.take("a", [requests_limit(5)], 0, HOLD_SECONDS)
    assert b"db3:keys=2" in await redis.call("INFO", "keyspace")
    wrong = RedisRateStore(f"redis://:wrong@{address}/3", timeout_seconds=10.0)
    with pytest.raises(RatesUnavailable) as caught:
        await wrong.take("a", [requests_limit(5)], 0, HOLD_SECONDS)
    assert "wrong@" not in str(caught.value)
    for opened in (store, wrong, redis):
        await opened.close()


async def test_a_closed_store_opens_again_when_it_is_used(redis_store):
    await redis_store.take("a", [requests_limit(5)], 0, HOLD_SECONDS)
    await redis_store.close()
    assert (await redis_store.take("b", [requests_limit(5)], 0, HOLD_SECONDS)).readings[0].remaining == 3


async def test_a_request_that_is_cancelled_leaves_the_replies_of_others_in_order(redis_store):
    limit = requests_limit(1000)
    running = [asyncio.ensure_future(redis_store.take(f"r{n}", [limit], 0, HOLD_SECONDS)) for n in range(50)]
    await asyncio.sleep(0)
    for task in running[::2]:
        task.cancel()
    verdicts = [v for v in await asyncio.gather(*running, return_exceptions=True) if not isinstance(v, BaseException)]
    assert len(verdicts) == 25
    remaining = [verdict.readings[0].remaining for verdict in verdicts]
    assert remaining == sorted(remaining, reverse=True)
    assert len(set(remaining)) == 25


def test_threads_with_event_loops_of_their_own_share_the_store(redis_server, prefix):
    store = RedisRateStore(redis_server.url, prefix, timeout_seconds=10.0, connect_timeout_seconds=10.0)
    admitted = []

    async def take_many(thread):
        takes = [store.take(f"{thread}-{n}", [requests_limit(50)], 0, HOLD_SECONDS) for n in range(40)]
        admitted.append(sum(verdict.allowed for verdict in await asyncio.gather(*takes)))
        await store.close()

    threads = [threading.Thread(target=lambda t=t: asyncio.run(take_many(t))) for t in range(3)]
    for thread in threads:
        thread.start()
        thread.join()
    assert sum(admitted) == 50


def test_processes_share_the_limit_exactly(redis_server, prefix):
    command = [sys.executable, "-m", "tests.rates.take_many", redis_server.url, prefix, "50", "30"]
    processes = [subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) for _ in range(4)]
    admitted = [int(process.communicate()[0]) for process in processes]
    assert sum(admitted) == 50


@pytest.mark.parametrize("failure", ["stopped", "frozen"])
async def test_a_redis_that_is_stopped_or_frozen_makes_the_rates_unavailable(own_redis_server, failure):
    store, limits = RedisRateStore(own_redis_server.url), [requests_limit(5)]
    await _take_until_answered(store, limits)
    if failure == "stopped":
        own_redis_server.stop()
    else:
        own_redis_server.freeze()
    for operation in (
        store.take("b", limits, 0, HOLD_SECONDS),
        store.release("a", limits, 0, 0),
        store.give_back("a", limits, 0),
        store.peek(limits, 0),
    ):
        with pytest.raises(RatesUnavailable):
            await operation
    await store.close()


async def test_an_error_of_redis_makes_the_rates_unavailable(redis_store, redis, prefix):
    await redis.call("LPUSH", f"{{{prefix}}}:p1:requests:60000000", "not a window")
    with pytest.raises(RatesUnavailable, match="WRONGTYPE"):
        await redis_store.take("a", [requests_limit(5)], 0, HOLD_SECONDS)


async def test_a_server_that_does_not_speak_redis_makes_the_rates_unavailable():
    async def answer(reader, writer):
        await reader.read(10)
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        store = RedisRateStore(f"redis://127.0.0.1:{port}", timeout_seconds=10.0)
        with pytest.raises(RatesUnavailable):
            await store.take("a", [requests_limit(5)], 0, HOLD_SECONDS)
        await store.close()


async def _take_until_answered(store, limits):
    """Take once; a busy machine may keep even a healthy Redis beyond the short timeout."""
    while True:
        try:
            return await store.take("a", limits, 0, HOLD_SECONDS)
        except RatesUnavailable:
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("anyio_backend", [("asyncio", {"use_uvloop": uvloop}) for uvloop in (False, True)])
async def test_an_event_loop_that_stood_still_itself_does_not_blame_redis(redis_server, prefix, anyio_backend):
    store = RedisRateStore(redis_server.url, prefix, timeout_seconds=0.5, connect_timeout_seconds=10.0)
    await _take_until_answered(store, [requests_limit(5)])
    take = asyncio.ensure_future(store.take("b", [requests_limit(5)], 0, HOLD_SECONDS))
    for _ in range(3):
        await asyncio.sleep(0)
    _stand_still(1.0)
    assert (await take).allowed
    await store.close()


async def test_over_tls_the_server_proves_who_it_is(redis_server, prefix, tmp_path):
    context, certificate = _self_signed(tmp_path)
    async with await _tls_in_front_of(redis_server, context) as server:
        url = f"rediss://127.0.0.1:{server.sockets[0].getsockname()[1]}/0"
        limits, patience = [requests_limit(5)], {"timeout_seconds": 10.0, "connect_timeout_seconds": 10.0}
        trusting = RedisRateStore(f"{url}?ssl_ca_certs={certificate}", prefix, **patience)
        careless = RedisRateStore(f"{url}?ssl_cert_reqs=none", prefix, **patience)
        for store in (trusting, careless):
            assert (await store.take("a", limits, 0, HOLD_SECONDS)).allowed
            await store.close()
        with pytest.raises(RatesUnavailable, match="certificate"):
            await RedisRateStore(url, prefix, **patience).take("a", limits, 0, HOLD_SECONDS)


def _stand_still(seconds):
    time.sleep(seconds)


async def _tls_in_front_of(redis_server, context):
    async def relay(reader, writer):
        try:
            while data := await reader.read(65536):
                writer.write(data)
        finally:
            writer.close()

    async def serve(reader, writer):
        redis_reader, redis_writer = await asyncio.open_connection("127.0.0.1", redis_server.port)
        await asyncio.gather(relay(reader, redis_writer), relay(redis_reader, writer), return_exceptions=True)

    return await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)


def _self_signed(folder):
    """A server's TLS context for 127.0.0.1 and the path of its certificate, which signs itself."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.datetime.now(datetime.UTC)
    day = datetime.timedelta(days=1)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), 1, now - day, now + day)
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem, encoding = folder / "certificate.pem", serialization.Encoding.PEM
    pem.write_bytes(certificate.public_bytes(encoding))
    key_format, secret = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    (folder / "key.pem").write_bytes(key.private_bytes(encoding, key_format, secret))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem, folder / "key.pem")
    return context, pem
