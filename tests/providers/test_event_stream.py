import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps.gateway.event_stream import EventDecoder
from apps.gateway.providers.base import Fault, UpstreamError


def decode(*pieces: bytes, limit: int = 1000) -> list[bytes]:
    decoder = EventDecoder(limit)
    return [event for piece in pieces for event in decoder.feed(piece)]


@pytest.mark.parametrize(
    ("stream", "events"),
    [
        (b'data: {"a":1}\n\n', [b'{"a":1}']),
        (b"data:no space\n\n", [b"no space"]),
        (b"data:  two spaces\n\n", [b" two spaces"]),
        (b"data: a\r\n\r\ndata: b\r\n\r\n", [b"a", b"b"]),
        (b"data: a\r\rdata: b\r\r", [b"a", b"b"]),
        (b"data: a\r\ndata: b\n\r", [b"a\nb"]),
        (b"data: a\ndata: b\n\n", [b"a\nb"]),
        (b": keep-alive\n\ndata: a\n\n", [b"a"]),
        (b": note\ndata: a\n\n", [b"a"]),
        (b"event: done\nid: 7\nretry: 10\ndata: a\n\n", [b"a"]),
        (b"event: ping\n\ndata: a\n\n", [b"a"]),
        (b"data\n\n", [b""]),
        (b"data\ndata\n\n", [b"\n"]),
        (b"database: x\n\n", []),
        (b" data: x\n\n", []),
        (b"\n\n\n\ndata: a\n\n\n\n\ndata: b\n\n", [b"a", b"b"]),
        (b"\xef\xbb\xbfdata: a\n\n", [b"a"]),
        (b"data: a\n\n\xef\xbb\xbfdata: b\n\n", [b"a"]),
        (b"data: a\n\ndata: unfinished\n", [b"a"]),
        (b"data: a:b\n\n", [b"a:b"]),
        (b"", []),
    ],
)
def test_a_stream_gives_the_data_of_its_events_however_it_is_cut(stream: bytes, events: list[bytes]) -> None:
    assert decode(stream) == events
    assert decode(*(stream[i : i + 1] for i in range(len(stream)))) == events
    for cut in range(len(stream)):
        assert decode(stream[:cut], stream[cut:]) == events


@given(
    st.lists(st.binary(max_size=12).map(lambda data: data.replace(b"\n", b"").replace(b"\r", b""))),
    st.sampled_from([b"\n", b"\r\n", b"\r"]),
    st.integers(1, 9),
)
def test_what_was_written_as_events_is_read_as_these_events(events: list[bytes], newline: bytes, piece: int) -> None:
    stream = b"".join(b"data: " + event + newline * 2 for event in events)
    assert decode(*(stream[i : i + piece] for i in range(0, len(stream), piece))) == events


@pytest.mark.parametrize("pieces", [[b"data: " + b"x" * 200 + b"\n\n"], [b"data: "] + [b"x"] * 200])
def test_an_event_that_is_too_large_is_refused_whether_or_not_it_ends(pieces: list[bytes]) -> None:
    with pytest.raises(UpstreamError) as caught:
        decode(*pieces, limit=100)
    assert caught.value.fault is Fault.GARBAGE


def test_many_small_events_in_one_piece_are_not_too_large() -> None:
    assert len(decode(b"data: x\n\n" * 100, limit=100)) == 100
