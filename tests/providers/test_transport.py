import asyncio
import ssl
from collections.abc import Awaitable, Callable

import pytest

from apps.gateway.providers.base import Fault, UpstreamError, UpstreamRequest
from apps.gateway.transport import Transport, UpstreamResponse
from tests.mock_upstream import GARBAGE, Behaviour, MockUpstream
from tests.providers.calling import Limits, Timeouts, chat, post, read, read_events, run


def completion(upstream: MockUpstream, **fields: object) -> UpstreamRequest:
    return post(f"{upstream.base_url}/chat/completions", chat(**fields))


def fault_of(upstream: MockUpstream, *, stream: bool = False, **options: object) -> Fault:
    reading = read_events if stream else read
    with pytest.raises(UpstreamError) as caught:
        run(lambda transport: reading(transport, completion(upstream, stream=stream)), **options)
    assert str(upstream.port) not in caught.value.message
    return caught.value.fault


def test_an_answer_comes_with_status_lower_case_headers_and_body(upstream: MockUpstream) -> None:
    response, body = run(lambda transport: read(transport, completion(upstream)))
    assert response.status == 200
    assert response.headers["content-type"] == "application/json"
    assert b"Hello from the mock upstream." in body


def test_the_request_arrives_as_it_was_given(upstream: MockUpstream) -> None:
    request = UpstreamRequest(
        "POST", f"{upstream.base_url}/chat/completions", {"authorization": "Bearer k"}, b'{"a": 1}'
    )
    run(lambda transport: read(transport, request))
    [call] = upstream.calls
    assert call.body == b'{"a": 1}'
    assert call.headers["authorization"] == "Bearer k"
    assert "cookie" not in call.headers


def test_a_stream_comes_as_its_events(upstream: MockUpstream) -> None:
    upstream.script(Behaviour(words=30))
    events = run(lambda transport: read_events(transport, completion(upstream, stream=True)))
    assert len(events) == 33
    assert events[-1] == b"[DONE]"


def test_a_compressed_answer_is_decompressed(upstream: MockUpstream) -> None:
    upstream.script(Behaviour(gzipped=True))
    _, body = run(lambda transport: read(transport, completion(upstream)))
    assert body.startswith(b"{")


def test_a_redirect_is_handed_back_and_not_followed(upstream: MockUpstream) -> None:
    upstream.script(Behaviour(redirect=f"{upstream.base_url}/elsewhere"))
    response, _ = run(lambda transport: read(transport, completion(upstream)))
    assert response.status == 307
    assert len(upstream.calls) == 1


def test_an_error_status_is_an_answer(upstream: MockUpstream) -> None:
    upstream.script(Behaviour(status=429, retry_after="7"))
    response, body = run(lambda transport: read(transport, completion(upstream)))
    assert (response.status, response.headers["retry-after"]) == (429, "7")
    assert b"error" in body


def test_a_proxy_in_the_environment_is_not_used(upstream: MockUpstream, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("NO_PROXY", "")
    response, _ = run(lambda transport: read(transport, completion(upstream)))
    assert response.status == 200


def connections_after(upstream: MockUpstream, first: Behaviour, leave: Callable[..., Awaitable[None]]) -> int:
    """Count the connections of a stream that is left in some way and a call after it."""

    async def calls(transport: Transport) -> None:
        upstream.script(first)
        response = await transport.send(completion(upstream, stream=True))
        await leave(response)
        await response.close()
        await response.close()
        await read(transport, completion(upstream))

    run(calls)
    return len({call.client_port for call in upstream.calls})


async def read_to_the_end(response: UpstreamResponse) -> None:
    async for _ in response.event_batches():
        pass


async def read_to_the_end_mark(response: UpstreamResponse) -> None:
    async for event in response.events():
        if event == b"[DONE]":
            break


async def finish_at_the_end_mark(response: UpstreamResponse) -> None:
    await read_to_the_end_mark(response)
    await response.finish()


def test_a_connection_is_used_again_after_its_answer_was_read(upstream: MockUpstream) -> None:
    assert connections_after(upstream, Behaviour(tail=0.1), read_to_the_end) == 1


def test_a_connection_is_used_again_after_its_answer_was_finished(upstream: MockUpstream) -> None:
    assert connections_after(upstream, Behaviour(tail=0.1), finish_at_the_end_mark) == 1


def test_a_connection_is_dropped_with_an_answer_that_was_not_read(upstream: MockUpstream) -> None:
    assert connections_after(upstream, Behaviour(tail=0.1), read_to_the_end_mark) == 2


def test_an_answer_without_an_end_is_finished_all_the_same(upstream: MockUpstream) -> None:
    assert connections_after(upstream, Behaviour(tail=60), finish_at_the_end_mark) == 2


def test_a_client_that_drops_a_stream_is_noticed_by_the_provider(upstream: MockUpstream) -> None:
    upstream.script(Behaviour(words=100, gap=0.05))

    async def call(transport: Transport) -> None:
        response = await transport.send(completion(upstream, stream=True))
        await anext(response.events())
        await response.close()
        await asyncio.to_thread(upstream.wait_until_left, upstream.calls[0])

    run(call)
    assert upstream.calls[0].left


def test_a_cancelled_call_drops_its_connection(upstream: MockUpstream) -> None:
    upstream.script(Behaviour(hang="headers"))

    async def call(transport: Transport) -> None:
        task = asyncio.create_task(transport.send(completion(upstream)))
        await asyncio.to_thread(upstream.wait_for_calls, 1)
        task.cancel()
        await asyncio.to_thread(upstream.wait_until_left, upstream.calls[0])

    run(call)
    assert upstream.calls[0].left


def test_a_refused_connection_was_never_reached() -> None:
    with MockUpstream() as gone:
        url = f"{gone.base_url}/chat/completions"
    with pytest.raises(UpstreamError) as caught:
        run(lambda transport: transport.send(post(url)))
    assert caught.value.fault is Fault.CONNECT


def test_a_host_without_an_address_was_never_reached() -> None:
    with pytest.raises(UpstreamError) as caught:
        run(lambda transport: transport.send(post("https://no-such-host.invalid/v1")))
    assert caught.value.fault is Fault.CONNECT


def test_a_certificate_that_nobody_vouches_for_is_not_accepted(self_signed: ssl.SSLContext) -> None:
    with MockUpstream(tls=self_signed) as upstream:
        assert fault_of(upstream) is Fault.CONNECT
        assert not upstream.calls


def test_a_header_that_cannot_be_sent_is_never_sent_nor_shown(upstream: MockUpstream) -> None:
    headers = {"authorization": "Bearer sk-secret\r\nx-evil: 1"}
    request = UpstreamRequest("POST", f"{upstream.base_url}/chat/completions", headers, b"{}")
    with pytest.raises(UpstreamError) as caught:
        run(lambda transport: transport.send(request))
    assert caught.value.fault is Fault.CONNECT
    assert "secret" not in caught.value.message
    assert not upstream.calls


@pytest.mark.parametrize(
    ("behaviour", "stream"),
    [
        (Behaviour(breaks="headers"), False),
        (Behaviour(breaks="body"), False),
        (Behaviour(breaks="stream", words=5), True),
    ],
    ids=["before the headers", "in the body", "in the stream"],
)
def test_a_connection_that_ends_too_early_is_broken(upstream: MockUpstream, behaviour: Behaviour, stream: bool) -> None:
    upstream.script(behaviour)
    assert fault_of(upstream, stream=stream) is Fault.BROKEN


def test_the_events_before_a_break_are_delivered(upstream: MockUpstream) -> None:
    upstream.script(Behaviour(breaks="stream", words=5, after=3))

    async def call(transport: Transport) -> list[bytes]:
        response = await transport.send(completion(upstream, stream=True))
        events = response.events()
        received = [await anext(events) for _ in range(4)]
        with pytest.raises(UpstreamError) as caught:
            await anext(events)
        assert caught.value.fault is Fault.BROKEN
        return received

    assert [b"content" in event for event in run(call)] == [True] * 4


@pytest.mark.parametrize(
    ("behaviour", "timeouts", "stream"),
    [
        (Behaviour(hang="headers"), Timeouts(first_byte=0.2), False),
        (Behaviour(first=30), Timeouts(first_byte=0.2), True),
        (Behaviour(hang="stream", words=5), Timeouts(idle=0.2), True),
        (Behaviour(words=1000, gap=0.05), Timeouts(total=0.3), True),
        (Behaviour(hang="headers"), Timeouts(total=0.2), False),
    ],
    ids=["headers", "first byte of the body", "idle", "total of a stream", "total"],
)
def test_a_provider_that_is_too_slow_is_timed_out(
    upstream: MockUpstream, behaviour: Behaviour, timeouts: Timeouts, stream: bool
) -> None:
    upstream.script(behaviour)
    assert fault_of(upstream, stream=stream, timeouts=timeouts) is Fault.TIMEOUT


def test_waiting_for_a_free_connection_in_vain_counts_as_never_reached(upstream: MockUpstream) -> None:
    upstream.script(Behaviour(hang="headers"))

    async def calls(transport: Transport) -> None:
        first = asyncio.create_task(transport.send(completion(upstream)))
        await asyncio.to_thread(upstream.wait_for_calls, 1)
        try:
            await transport.send(completion(upstream))
        finally:
            first.cancel()

    with pytest.raises(UpstreamError) as caught:
        run(calls, limits=Limits(connections=1), timeouts=Timeouts(connect=0.2))
    assert caught.value.fault is Fault.CONNECT


@pytest.mark.parametrize("name", ["not_gzip", "not_http", "chunking", "huge", "gzip_bomb"])
@pytest.mark.parametrize("stream", [False, True])
def test_an_answer_that_is_none_is_garbage(upstream: MockUpstream, name: str, stream: bool) -> None:
    upstream.script(Behaviour(garbage=name))
    limits = Limits(reply_bytes=1_000_000, event_bytes=1_000_000)
    assert fault_of(upstream, stream=stream, limits=limits) is Fault.GARBAGE


def test_a_stream_that_is_too_long_in_all_is_garbage(upstream: MockUpstream) -> None:
    upstream.script(Behaviour(words=1000))
    assert fault_of(upstream, stream=True, limits=Limits(stream_bytes=10_000)) is Fault.GARBAGE


def test_an_answer_that_announces_too_much_is_refused_unread(upstream: MockUpstream) -> None:
    assert fault_of(upstream, limits=Limits(reply_bytes=10)) is Fault.GARBAGE


def test_an_empty_answer_is_empty(upstream: MockUpstream) -> None:
    upstream.script(Behaviour(garbage="empty"))
    _, body = run(lambda transport: read(transport, completion(upstream)))
    assert body == GARBAGE["empty"]


def test_a_transport_that_was_closed_sends_nothing(upstream: MockUpstream) -> None:
    async def call(transport: Transport) -> None:
        await transport.close()
        await transport.close()
        await transport.send(completion(upstream))

    with pytest.raises(RuntimeError):
        run(call)
    assert not upstream.calls
