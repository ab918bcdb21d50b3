"""Social security and card numbers: what is one and what only has as many digits."""

import pytest

from apps.policies.guardrails.findings import Detector
from apps.policies.guardrails.rules.identity import is_luhn
from tests.guardrails.seen import spans

SSNS = [
    ("SSN 123-45-6789.", "123-45-6789"),
    ("my number is 123-45-6789", "123-45-6789"),
    ("123 45 6789", "123 45 6789"),
    ("ssn: 123456789", "123456789"),
    ("Social Security number is 123.45.6789", "123.45.6789"),
    ("899-01-0001", "899-01-0001"),
]

NO_SSNS = [
    "000-12-3456",
    "666-12-3456",
    "900-12-3456",
    "123-00-4567",
    "123-45-0000",
    "123456789",
    "part 1123-45-67890",
    "12-123-45-6789",
    "123-45-6789-0",
    "12 123 45 6789 01",
    "2024-01-15",
    "94105-1234",
    "commit 123456789abcdef",
]

CARDS = [
    ("card 4111 1111 1111 1111 exp 12/29", "4111 1111 1111 1111"),
    ("4111-1111-1111-1111", "4111-1111-1111-1111"),
    ("4111111111111111", "4111111111111111"),
    ("4222222222222", "4222222222222"),
    ("5555 5555 5555 4444", "5555 5555 5555 4444"),
    ("2223003122003222", "2223003122003222"),
    ("3782 822463 10005", "3782 822463 10005"),
    ("6011111111111117", "6011111111111117"),
    ("3056 930902 5904", "3056 930902 5904"),
    ("3530111333300000", "3530111333300000"),
    ("6759649826438453", "6759649826438453"),
    ("4 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1", "4 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1"),
    ("on 12 29 4111 1111 1111 1111", "4111 1111 1111 1111"),
    ("4111 1111 1111 1111 123", "4111 1111 1111 1111"),
    ("号码4111111111111111。", "4111111111111111"),
]

NO_CARDS = [
    "4111 1111 1111 1112",
    "1234567890123456",
    "1700000000123456789",
    "9780306406157",
    "0.4111111111111111",
    "4111111111111111.5",
    "4111111111111111abc",
    "order id 8000000000000000",
    "4111111111111111000000",
    "3f786850e387550fdab836ed7e6dc881de23001b",
    "550e8400-e29b-41d4-a716-446655440000",
    "IBAN DE89 3704 0044 0532 0130 00",
]


@pytest.mark.parametrize(("text", "number"), SSNS)
def test_a_social_security_number_is_found(text: str, number: str) -> None:
    assert spans(text, Detector.SSN) == [number]


@pytest.mark.parametrize("text", NO_SSNS)
def test_numbers_that_are_never_issued_or_not_grouped_so_are_no_ssn(text: str) -> None:
    assert spans(text, Detector.SSN) == []


@pytest.mark.parametrize(("text", "number"), CARDS)
def test_a_card_number_is_found(text: str, number: str) -> None:
    assert spans(text, Detector.CREDIT_CARD) == [number]


@pytest.mark.parametrize("text", NO_CARDS)
def test_numbers_without_check_digit_or_issuer_are_no_card_numbers(text: str) -> None:
    assert spans(text, Detector.CREDIT_CARD) == []


def test_neighbours_are_told_apart() -> None:
    text = "123-45-6789 4111 1111 1111 1111 5555555555554444"
    assert spans(text, Detector.SSN) == ["123-45-6789"]
    assert spans(text, Detector.CREDIT_CARD) == ["4111 1111 1111 1111", "5555555555554444"]


def test_the_check_digit_is_that_of_the_standard() -> None:
    assert is_luhn(b"79927398713")
    assert [digit for digit in b"0123456789" if is_luhn(b"7992739871" + bytes([digit]))] == [ord("3")]
