"""E-mail addresses, telephone numbers and IP addresses: what is one and what only looks like one."""

import pytest

from apps.policies.guardrails.findings import Detector
from tests.guardrails.seen import spans

EMAILS = [
    ("Write to john.doe@example.com today", "john.doe@example.com"),
    ("<a.b+tag@sub.example.co.uk>", "a.b+tag@sub.example.co.uk"),
    ("mailto:o'neil@example.ie?subject=x", "o'neil@example.ie"),
    ("JOHN@EXAMPLE.COM", "JOHN@EXAMPLE.COM"),
    ("email=x_1@mail-server.example.museum.", "x_1@mail-server.example.museum"),
    ("user@xn--bcher-kva.example", "user@xn--bcher-kva.example"),
    ("用户@例子.公司", "用户@例子.公司"),
    ("jürgen@müller.de", "jürgen@müller.de"),
    ("12345@qq.com", "12345@qq.com"),
    ("john [at] example [dot] com", "john [at] example [dot] com"),
    ("john(at)example(dot)com", "john(at)example(dot)com"),
    ("write to john at example dot com", "john at example dot com"),
    ("john @ example . com", "john @ example . com"),
]

NO_EMAILS = [
    "@property def f(self): ...",
    "pip install foo@1.2.3",
    "npm i react@18.2.0",
    "the sprite logo@2x.png",
    "git clone git@github.com:owner/repo.git",
    "meet me @ the station at 5.30 on dot",
    "user@localhost",
    "a@b",
    "look at example dot matrix printers",
    "r@n/a",
]

PHONES = [
    ("(415) 555-2671", "(415) 555-2671"),
    ("415-555-2671", "415-555-2671"),
    ("415.555.2671", "415.555.2671"),
    ("1-415-555-2671", "1-415-555-2671"),
    ("+1 (415) 555-2671", "+1 (415) 555-2671"),
    ("+1-555-123-4567", "+1-555-123-4567"),
    ("+14155552671", "+14155552671"),
    ("+49 30 901820", "+49 30 901820"),
    ("+44 20 7946 0958, London", "+44 20 7946 0958"),
    ("+33 1 42 68 53 00", "+33 1 42 68 53 00"),
    ("+14155552671 2024-01-01", "+14155552671"),
    ("call me at 4155552671", "4155552671"),
    ("Call 415 555 2671 tomorrow", "415 555 2671"),
    ("phone: 030 901820-0", "030 901820-0"),
    ("Meine Handynummer ist 0171 2345678", "0171 2345678"),
    ("mobile 07700 900123", "07700 900123"),
    ("please call 123-456-7890", "123-456-7890"),
]

NO_PHONES = [
    "order 415-555-2671",
    "Invoice no. 415-555-2671",
    "licence 4155552671",
    "Call about order 12345678",
    "call me about ticket 4155552671",
    "call me on 2024-01-15",
    "Call between 10:30 and 11:45",
    "ISBN 978-0-306-40615-7",
    "4155552671",
    "1700000000",
    "Unix time 1700000000123",
    "c0ffee00-4155-4555-8267-123456789012",
    "call fee $1,234,567.89",
    "x+1234567890123",
    "+999 123456789",
    "the total of 12 345 678 units",
    "2024-415-555-2671-9",
    "3.14159265358979",
]

ADDRESSES = [
    ("from 10.0.0.1 to", "10.0.0.1"),
    ("203.0.113.195:8080", "203.0.113.195"),
    ("http://192.168.1.10/x", "192.168.1.10"),
    ("10.0.0.0/8", "10.0.0.0"),
    ("ip=8.8.8.8.", "8.8.8.8"),
    ("2001:db8::1", "2001:db8::1"),
    ("[2001:0db8:85a3:0000:0000:8a2e:0370:7334]:443", "2001:0db8:85a3:0000:0000:8a2e:0370:7334"),
    ("fe80::1ff:fe23:4567:890a.", "fe80::1ff:fe23:4567:890a"),
    ("::ffff:192.0.2.128", "::ffff:192.0.2.128"),
]

NO_ADDRESSES = [
    "1.2.3.4.5",
    "v1.2.3.4",
    "version 1.2.3.4",
    "release 10.4.0.1",
    "Chrome/120.0.6099.129",
    "256.1.1.1",
    "1.2.3",
    "OID 1.3.6.1",
    "1.2.3.4-beta",
    "pkg==1.2.3.4",
    "12:30:45",
    "std::vector<int> a::b dead::beef",
    "x[::2]",
    "00:1A:2B:3C:4D:5E",
    "2024-01-01T12:30:45+00:00",
]


@pytest.mark.parametrize(("text", "address"), EMAILS)
def test_an_email_address_is_found(text: str, address: str) -> None:
    assert spans(text, Detector.EMAIL) == [address]


@pytest.mark.parametrize("text", NO_EMAILS)
def test_what_only_has_an_at_sign_is_no_email_address(text: str) -> None:
    assert spans(text, Detector.EMAIL) == []


@pytest.mark.parametrize(("text", "number"), PHONES)
def test_a_phone_number_is_found(text: str, number: str) -> None:
    assert spans(text, Detector.PHONE) == [number]


@pytest.mark.parametrize("text", NO_PHONES)
def test_other_numbers_are_no_phone_numbers(text: str) -> None:
    assert spans(text, Detector.PHONE) == []


def test_each_of_several_phone_numbers_is_found() -> None:
    text = "Phone 4155552671 4155552672, or +1 415 555 2673 / (415) 555-2674"
    assert spans(text, Detector.PHONE) == ["4155552671", "4155552672", "+1 415 555 2673", "(415) 555-2674"]


@pytest.mark.parametrize(("text", "address"), ADDRESSES)
def test_an_ip_address_is_found(text: str, address: str) -> None:
    assert spans(text, Detector.IP_ADDRESS) == [address]


@pytest.mark.parametrize("text", NO_ADDRESSES)
def test_versions_times_and_scopes_are_no_ip_addresses(text: str) -> None:
    assert spans(text, Detector.IP_ADDRESS) == []
