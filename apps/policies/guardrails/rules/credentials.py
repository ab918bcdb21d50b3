"""Secrets: the formats of issuers, and values that stand beside a word for a secret.

The formats are those that the issuers document or that their secret scanning partners match.
"""

import math
from collections import Counter
from collections.abc import Iterable

import re2

from apps.policies.guardrails.findings import Detector
from apps.policies.guardrails.rewriting import Span
from apps.policies.guardrails.rules.rule import Candidate, Check, Rule, accept

_OPTIONS = re2.Options()
_OPTIONS.encoding = re2.Options.Encoding.LATIN1

_START = r"(?:^|[^A-Za-z0-9])"
"""RE2 has no lookbehind: what stands in front of a secret is matched and left out of the group."""

_ASSIGN = r"""(?:["'`]{1,2}[\])]?)?\s{0,3}(?::=|=>|==|[:=]|\s(?:is|ist|est|es)\s)\s{0,3}["'`]{0,3}"""


def _mixed(candidate: Candidate) -> Iterable[Span]:
    """Take a value of letters and digits; names and words that share a prefix with a secret have one of them."""
    value = candidate.value
    return (candidate.span,) if _has_digit(value) and _has_letter(value[4:]) else ()


def _has_digit(value: bytes) -> bool:
    return len(value.translate(None, b"0123456789")) < len(value)


def _has_letter(value: bytes) -> bool:
    return value.upper() != value.lower()


_NO_VALUE = re2.compile(
    rb"(?i)\[(?:secret|redacted|email|phone|ssn|credit_card|ip_address|injection).*|[*x.#_-]+|<.*|\$.*|%.*%?|\{.*|"
    rb"(?:your|my|the|example|sample|dummy|test|fake|placeholder|change|insert|enter|replace)[_-]?(?:[a-z]+[_-]?)*|"
    rb"(?:os|process|env|self|config|settings|secrets|vault|args|request|params|ctx)[.\[].*|[a-z_][\w.]*[(\[].*|"
    rb"https?://.*|(?:[a-z]+[_.-])+[a-z]+|[0-9.:/-]+|[a-z0-9._%+-]+@(?:[a-z0-9-]+\.)+[a-z]{2,24}",
    _OPTIONS,
)
_LEAST_ENTROPY = 2.3
_SHORTEST_PASSWORD, _SHORTEST_KEY = 6, 12


def entropy(value: bytes) -> float:
    """Return the Shannon entropy of the bytes of ``value``, in bits a byte."""
    return -sum(n / len(value) * math.log2(n / len(value)) for n in Counter(value[:256]).values()) if value else 0.0


def _classes(value: bytes) -> int:
    lower, upper = value.upper() != value, value.lower() != value
    digit, sign = _has_digit(value), not value.isalnum()
    return lower + upper + digit + sign


def _looks_chosen(value: bytes) -> bool:
    return _NO_VALUE.fullmatch(value) is None and _classes(value) > 1 and entropy(value) >= _LEAST_ENTROPY


def _password(candidate: Candidate) -> Iterable[Span]:
    value = candidate.value.rstrip(b".,;:)}]")
    if len(value) < _SHORTEST_PASSWORD or not _looks_chosen(value) or not (_has_digit(value) or _odd_sign(value)):
        return ()
    return (candidate.part(0, len(value)).span,)


def _odd_sign(value: bytes) -> bool:
    return any(sign in value for sign in b"!@#$%^&*+?~|")


def _key(candidate: Candidate) -> Iterable[Span]:
    value = candidate.value.rstrip(b".,;:)}]")
    if len(value) < _SHORTEST_KEY or not _looks_chosen(value) or not _has_digit(value):
        return ()
    return (candidate.part(0, len(value)).span,)


def _credentials_in_url(candidate: Candidate) -> Iterable[Span]:
    password = candidate.value.rpartition(b"@")[0].rpartition(b":")[2]
    template = not password or password[:1] in b"<$[{*" or set(password) <= set(b"xX.*")
    return () if template else (candidate.span,)


def _near(*words: bytes) -> Check:
    def check(candidate: Candidate) -> Iterable[Span]:
        around = (candidate.before(60) + b" " + candidate.after(40)).lower()
        return (candidate.span,) if any(word in around for word in words) else ()

    return check


def _format(name: str, pattern: str, check: Check = accept) -> Rule:
    return Rule(Detector.SECRET, name, f"{_START}({pattern})", check)


_PEM_KIND = r"(?:[A-Z0-9]{1,12} ){0,3}PRIVATE KEY(?: BLOCK)?"
_PEM = (
    rf"-----BEGIN {_PEM_KIND}-----"
    rf"(?:(?:[^\x80-]|-[^\x80-]){{16,}}-----END {_PEM_KIND}-----|(?:\s{{0,4}}[A-Za-z0-9+/=]{{16,}})+)"
)
_VALUE = r"""([^\s"'`,;<>\x80]{6,})"""
_CHOSEN = (
    r"(?:passwords?|passwd|passwort|passphrase|pwd|kennwort|mot de passe|contrasena|parola|senha|wachtwoord|"
    r"pass(?:code)?)"
)
_ISSUED = (
    r"(?:secret|(?:api|access|auth|account|private|secret|signing|encryption|client|master|service|session|license|app)"
    r"[\s_-]?(?:key|secret|token)|apikey|bearer|token|credentials?|client_?secret|secret_?key|schlussel)"
)

RULES = (
    _format("aws_access_key_id", r"(?:AKIA|ASIA|AGPA|AIDA|AROA|AIPA|ANPA|ANVA|ABIA|ACCA)[A-Z0-9]{16}\b"),
    Rule(
        Detector.SECRET,
        "aws_secret_access_key",
        rf"(?i)(?:aws|secret)[\w\s.-]{{0,20}}key{_ASSIGN}([A-Za-z0-9/+]{{40}})(?:[^A-Za-z0-9/+=]|$)",
        _mixed,
        hint=r"[A-Za-z0-9/+]{40}",
    ),
    _format("anthropic_key", r"sk-ant-[A-Za-z0-9_-]{16,}"),
    _format("openrouter_key", r"sk-or-v1-[0-9a-f]{32,}"),
    _format("openai_key", r"sk-(?:proj|svcacct|admin|None|live|test)-[A-Za-z0-9_-]{16,}", _mixed),
    _format("openai_legacy_key", r"sk-[A-Za-z0-9]{20,}", _mixed),
    _format("github_token", r"gh[pousr]_[A-Za-z0-9]{20,}"),
    _format("github_fine_grained_token", r"github_pat_[A-Za-z0-9_]{20,}"),
    _format("gitlab_token", r"gl(?:pat|dt|rt|ptt|cbt|agent|soat|ft|imt)-[A-Za-z0-9_-]{20,}"),
    _format("slack_token", r"xox[abeoprs]-[A-Za-z0-9-]{10,}|xapp-[0-9]-[A-Za-z0-9-]{10,}"),
    _format("slack_webhook", r"hooks\.slack\.com/(?:services|workflows|triggers)/[A-Za-z0-9+/_-]{20,}"),
    _format("discord_webhook", r"discord(?:app)?\.com/api/webhooks/[0-9]{15,21}/[A-Za-z0-9_-]{40,}"),
    _format("stripe_key", r"[rs]k_(?:live|test)_[A-Za-z0-9]{10,}|whsec_[A-Za-z0-9+/]{24,}"),
    _format("google_api_key", r"AIza[A-Za-z0-9_-]{35}"),
    _format("google_oauth_secret", r"GOCSPX-[A-Za-z0-9_-]{20,}"),
    _format("google_oauth_token", r"ya29\.[A-Za-z0-9_-]{20,}"),
    _format("twilio_key", r"(?:SK|AC)[0-9a-f]{32}\b", _near(b"twilio", b"sid", b"api_key", b"api key")),
    _format("sendgrid_key", r"SG\.[A-Za-z0-9_-]{16,}\.[A-Za-z0-9_-]{16,}"),
    _format("mailgun_key", r"key-[0-9a-f]{32}\b"),
    _format("mailchimp_key", r"[0-9a-f]{32}-us[0-9]{1,2}\b"),
    _format("npm_token", r"npm_[A-Za-z0-9]{30,}"),
    _format("pypi_token", r"pypi-[A-Za-z0-9_-]{40,}", _mixed),
    _format("digitalocean_token", r"do[opr]_v1_[0-9a-f]{40,}"),
    _format("hugging_face_token", r"hf_[A-Za-z0-9]{30,}"),
    _format("databricks_token", r"dapi[0-9a-f]{32}(?:-[0-9])?\b"),
    _format("azure_storage_key", r"(?:AccountKey|SharedAccessKey)=[A-Za-z0-9+/]{32,}={0,2}"),
    _format("azure_shared_access_signature", r"sig=[A-Za-z0-9+/]{40,}={0,2}"),
    _format("groq_key", r"gsk_[A-Za-z0-9]{40,}"),
    _format("xai_key", r"xai-[A-Za-z0-9]{40,}"),
    _format("perplexity_key", r"pplx-[A-Za-z0-9]{40,}"),
    _format("replicate_token", r"r8_[A-Za-z0-9]{30,}"),
    _format("shopify_token", r"shp(?:at|ca|pa|ss)_[0-9a-fA-F]{32}"),
    _format("square_token", r"sq0[a-z]{3}-[A-Za-z0-9_-]{22,}"),
    _format("telegram_bot_token", r"[0-9]{8,10}:AA[A-Za-z0-9_-]{33}"),
    _format("vault_token", r"hv[sb]\.[A-Za-z0-9_-]{24,}"),
    _format("docker_token", r"dckr_[a-z]{3}_[A-Za-z0-9_-]{20,}"),
    _format("grafana_token", r"gl(?:sa|c)_[A-Za-z0-9+/_]{30,}"),
    _format("new_relic_key", r"NRAK-[A-Z0-9]{27}"),
    _format("sentry_token", r"sntry[su]_[A-Za-z0-9+/=_]{40,}"),
    _format("atlassian_token", r"ATATT3[A-Za-z0-9_=-]{40,}"),
    _format("linear_key", r"lin_(?:api|oauth)_[A-Za-z0-9]{32,}"),
    _format("notion_token", r"ntn_[A-Za-z0-9]{40,}"),
    _format("supabase_token", r"sb(?:p|_secret)_[A-Za-z0-9_]{30,}"),
    _format("age_secret_key", r"AGE-SECRET-KEY-1[0-9A-Z]{50,}"),
    _format("control_plane_key", r"lcp_[0-9A-Za-z]{8}_[0-9A-Za-z_]{20,}"),
    _format("json_web_token", r"eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]*"),
    Rule(Detector.SECRET, "private_key", _PEM, hint=rf"-----BEGIN {_PEM_KIND}-----"),
    Rule(
        Detector.SECRET,
        "credentials_in_url",
        r"""([A-Za-z][A-Za-z0-9+.-]*://[^\s:/@"'<>\x80]*:[^\s/"'<>\x80]+@[A-Za-z0-9.\[\]_-]+)""",
        _credentials_in_url,
    ),
    Rule(
        Detector.SECRET,
        "authorization_header",
        r"(?i)\b(?:bearer\s{1,3}([A-Za-z0-9._~+/=-]{16,}))",
        _mixed,
    ),
    Rule(
        Detector.SECRET,
        "basic_authorization_header",
        r"""(?i)\bauthorization["']?\s{0,3}[:=]\s{0,3}["']?basic\s{1,3}([A-Za-z0-9+/]{8,}={0,2})""",
    ),
    Rule(Detector.SECRET, "password_assignment", rf"(?i){_CHOSEN}{_ASSIGN}{_VALUE}", _password),
    Rule(Detector.SECRET, "key_assignment", rf"(?i){_ISSUED}{_ASSIGN}{_VALUE}", _key),
)
