"""E-mail addresses, telephone numbers and IP addresses."""

import ipaddress
import re
from collections.abc import Iterable, Iterator

import phonenumbers
import re2

from apps.policies.guardrails.findings import Detector
from apps.policies.guardrails.rewriting import Span
from apps.policies.guardrails.rules.rule import Candidate, Rule

_NO_TOP_LEVEL_DOMAINS = frozenset(
    b"png jpg jpeg gif svg webp bmp ico tif tiff pdf css scss js jsx mjs ts tsx json yaml yml xml html htm php "
    b"txt md csv log zip tar gz whl dll exe".split()
)

_LOCAL = r"[a-z0-9_\xff][a-z0-9._%+&'~!#$^*\xff-]*"
_LABEL = r"[a-z0-9\xff][a-z0-9\xff-]*"
_EMAIL = rf"(?i){_LOCAL}@(?:{_LABEL}\.)+(?:xn--[a-z0-9-]+|[a-z\xff]{{2,24}})"
_AT = r"(?:\s?[\[({<]\s?at\s?[\])}>]\s?|\s@\s)"
_DOT = r"(?:\s?[\[({<]\s?dot\s?[\])}>]\s?|\s?\.\s?|\sdot\s)"
_COMMON_DOMAINS = r"(?:com|org|net|edu|gov|mil|info|io|ai|dev|app|co|uk|us|ca|au|de|at|ch|fr|es|it|nl|pl|eu|in|jp|br)"
_SPELLED = (
    rf"(?i)[a-z0-9_][a-z0-9._%+-]*(?:{_AT}[a-z0-9-]+(?:{_DOT}[a-z0-9-]+)*{_DOT}{_COMMON_DOMAINS}"
    rf"|\sat\s[a-z0-9-]+(?:\sdot\s[a-z0-9-]+)*\sdot\s{_COMMON_DOMAINS})\b"
)


def _email(candidate: Candidate) -> Iterable[Span]:
    local, _, domain = candidate.value.lower().rpartition(b"@")
    if domain.rpartition(b".")[2] in _NO_TOP_LEVEL_DOMAINS:
        return ()
    if local == b"git" and candidate.after(1) == b":":  # the address of a repository
        return ()
    return (candidate.span,)


_OPTIONS = re2.Options()
_OPTIONS.encoding = re2.Options.Encoding.LATIN1
_PHONE_WORDS = (
    r"(?i)\b(?:tele?(?:ph|f)on\w*|phone\w*|tel|mobil\w*|cell\w*|call\w*|dial|fax|whatsapp|sms|text (?:me|us|him|her)|"
    r"reach|contact|handy\w*|rufnummer|portable|movil|celular|hotline|ring me|anrufen|appele\w*|llam\w*)\b"
)
_PHONE_WORD = re2.compile(_PHONE_WORDS.encode(), _OPTIONS)
_OTHER_WORD = re2.compile(
    rb"(?i)\b(?:orders?|invoice|licen[cs]e|ticket|case|account|acct|ref|reference|serial|part|model|isbn|issn|sku|"
    rb"tracking|parcel|shipment|ids?|uuid|vin|iban|policy|claim|contract|customer|transaction|receipt|version|"
    rb"bestell\w*|rechnung\w*|commande|facture|pedido|factura|hash|commit|issue|bug|amount|price|total|timestamp|"
    rb"epoch|docket|item|batch|lot|po|passport|patent)\b",
    _OPTIONS,
)
_OTHER_NUMBER = re2.compile(
    _OTHER_WORD.pattern + rb"[\s#:._=-]{0,4}(?:(?:number|num|nr|no|is|was|code|id)\b[\s#:._=-]{0,4}){0,2}$",
    _OPTIONS,
)
_PLACEHOLDER = b"[PHONE]"
_DATE = re2.compile(
    rb"(?:19|20)\d\d ?[-/] ?(?:19|20)\d\d|(?:19|20)\d\d[-./ ]\d\d?[-./ ]\d\d?|\d\d?[-./ ]\d\d?[-./ ](?:19|20)\d\d",
    _OPTIONS,
)
_NANP = re2.compile(rb"\+1[\s.-]?\(?[2-9]\d{2}\)?[\s.-]?\d{3}[\s.-]?\d{4}", _OPTIONS)
_GROUPS = re.compile(rb"[^ ]+")  # one character class: linear
_WINDOW, _NARROW_WINDOW = 40, 20
_LOCAL_DIGITS = 8  # so few digits are often no phone number
_FEWEST_DIGITS, _MOST_DIGITS = 7, 15  # ITU-T E.164 ends at 15


def _digits(value: bytes) -> bytes:
    return value.translate(None, b" \t\n().-/+")


def _joined_to_more(candidate: Candidate) -> bool:
    # Part of a longer number, a decimal, a name or a hash.
    before, after = candidate.before(2), candidate.after(2)
    return (
        before[-1:].isalnum()
        or before[-1:] in (b"_", b"$")
        or (before[:1].isdigit() and before[1:] in (b".", b"-", b"/"))
        or after[:1].isalnum()
        or after[:1] == b"_"
        or (after[:1] in (b".", b"-", b"/") and after[1:].isdigit())
    )


def _international_phone(candidate: Candidate) -> Iterable[Span]:
    # What follows a number may look like more of it: the longest beginning that is a number counts.
    if candidate.before(1).isalpha():
        return
    value = candidate.value
    ends = [len(value), *(i for i in range(len(value) - 1, _FEWEST_DIGITS, -1) if value[i] in b" \t\n.-/(")]
    for end in ends:
        number = candidate.part(0, len(value[:end].rstrip(b" \t\n.-/(")))
        if not number.after(1).isalnum() and _is_phone(number.value):
            yield number.span
            return


def _is_phone(value: bytes) -> bool:
    if not _FEWEST_DIGITS <= len(_digits(value)) <= _MOST_DIGITS:
        return False
    if _NANP.fullmatch(value) is not None:
        return True  # the numbers of examples and fiction too, which belong to nobody yet
    try:
        return bool(phonenumbers.is_valid_number(phonenumbers.parse(value.decode("latin-1"))))
    except phonenumbers.NumberParseException:
        return False


def _grouped_phone(candidate: Candidate) -> Iterable[Span]:
    if _joined_to_more(candidate) or _OTHER_NUMBER.search(candidate.before(_WINDOW)) is not None:
        return ()
    return (candidate.span,)


def _named_phone(candidate: Candidate) -> Iterator[Span]:
    value = candidate.value
    if _joined_to_more(candidate) or _DATE.fullmatch(value) is not None or not _phone_word_near(candidate):
        return
    for start, end in _numbers(value):
        if _FEWEST_DIGITS <= len(_digits(value[start:end])) <= _MOST_DIGITS:
            yield candidate.part(start, end).span


def _numbers(value: bytes) -> Iterator[Span]:
    # Several numbers in a row: as many groups to each as a number can have; a bracket or a stroke begins another one.
    start = end = count = 0
    for group in _GROUPS.finditer(value):
        digits = len(_digits(group.group()))
        begins_anew = count >= _FEWEST_DIGITS and (digits == 0 or group.group()[:1] == b"(")
        if begins_anew or count + digits > _MOST_DIGITS:
            yield start, end
            count = 0
        if 0 < digits <= _MOST_DIGITS:
            start, end, count = (start if count else group.start()), group.end(), count + digits
    yield start, end


def _phone_word_near(candidate: Candidate) -> bool:
    window = _WINDOW if len(_digits(candidate.value)) > _LOCAL_DIGITS else _NARROW_WINDOW
    before = candidate.before(window).replace(_PLACEHOLDER, b" " * len(_PLACEHOLDER))
    phone = max((match.start() for match in _PHONE_WORD.finditer(before)), default=-1)
    other = max((match.start() for match in _OTHER_WORD.finditer(before)), default=-1)
    return phone > other


_IP_VERSION_WORD = re2.compile(
    rb"(?:(?i:\b(?:version|ver|release|build|firmware|oid|section|chapter|rev|kernel|driver)\b[\s:.=]*|\bv\.?)|"
    rb"\b[A-Z][A-Za-z]+/|[=~<>^]=\s?)$",
    _OPTIONS,
)


def _ipv4(candidate: Candidate) -> Iterable[Span]:
    before, after = candidate.before(24), candidate.after(2)
    if before[-1:].isalnum() or before[-1:] in (b".", b"_", b"\xff") or after[:1].isalnum() or after[:1] == b"_":
        return ()
    if after[:1] in (b"-", b"+") and after[1:].isalpha():  # the suffix of a version
        return ()
    if _IP_VERSION_WORD.search(before) is not None:
        return ()
    try:
        ipaddress.IPv4Address(candidate.value.decode("latin-1"))
    except ValueError:
        return ()
    return (candidate.span,)


_LONGEST_IPV6 = 45
_FEWEST_GROUPS = 2


def _ipv6(candidate: Candidate) -> Iterable[Span]:
    value = candidate.value.rstrip(b".")
    if value.endswith(b":") and not value.endswith(b"::"):
        value = value[:-1]
    around = candidate.before(1) + candidate.after(1)
    if len(value) > _LONGEST_IPV6 or around.replace(b"\xff", b"").isalnum() or b"_" in around:
        return ()
    groups = [group for group in value.split(b":") if group]
    # Slices, scopes and times are made of colons too: an address has digits and more than one short group.
    if len(groups) < _FEWEST_GROUPS or not any(c in b"0123456789" for c in value) or max(map(len, groups)) < 3:
        return ()
    try:
        ipaddress.IPv6Address(value.decode("latin-1"))
    except ValueError:
        return ()
    return ((candidate.start, candidate.start + len(value)),)


RULES = (
    Rule(Detector.EMAIL, "email_address", _EMAIL, _email, hint=r"(?i)@[a-z0-9\xff][a-z0-9\xff-]*\.[a-z0-9\xff]"),
    Rule(Detector.EMAIL, "email_spelled_out", _SPELLED),
    Rule(
        Detector.PHONE,
        "phone_international",
        r"\+\s?\(?\d[\d\s().\-/]{5,24}\d",
        _international_phone,
        hint=r"\+\s?\(?\d[\d\s().\-/]{5}",
        most_checks=2000,
    ),
    Rule(
        Detector.PHONE,
        "phone_us",
        r"(?:\b1[\s.-]?)?\([2-9]\d{2}\)\s?[.-]?\d{3}[\s.-]\d{4}|\b(?:1[.-])?[2-9]\d{2}[.-]\d{3}[.-]\d{4}",
        _grouped_phone,
    ),
    Rule(Detector.PHONE, "phone_with_keyword", r"[\d(][\d \t().\-/]{5,60}\d", _named_phone, hint=_PHONE_WORDS),
    Rule(Detector.IP_ADDRESS, "ipv4", r"\d+(?:\.\d+){3,}", _ipv4),
    Rule(Detector.IP_ADDRESS, "ipv6", r"[0-9A-Fa-f:]*:[0-9A-Fa-f]*:[0-9A-Fa-f:.]*", _ipv6),
)
