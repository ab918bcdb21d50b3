"""Secrets: every format that is known, values beside a word for a secret, and what is none.

The examples are put together here so that no secret stands in this file.
"""

import pytest

from apps.policies.guardrails.findings import Detector
from tests.guardrails.seen import redacted, spans

MIXED = "a1B2c3D4e5F6g7H8i9J0" * 10
HEX = "0123456789abcdef" * 8

FORMATS = {
    "aws_access_key_id": "AKIA" + "IOSFODNN7EXAMPLE",
    "anthropic_key": "sk-" + "ant-api03-" + MIXED[:40],
    "openrouter_key": "sk-" + "or-v1-" + HEX[:64],
    "openai_key": "sk-" + "proj-" + MIXED[:48],
    "openai_legacy_key": "sk-" + MIXED[:48],
    "github_token": "ghp" + "_" + MIXED[:36],
    "github_fine_grained_token": "github" + "_pat_" + MIXED[:22] + "_" + MIXED[:59],
    "gitlab_token": "glpat" + "-" + MIXED[:20],
    "slack_token": "xoxb" + "-123456789012-123456789012-" + MIXED[:24],
    "slack_webhook": "hooks.slack" + ".com/services/T00000000/B00000000/" + MIXED[:24],
    "discord_webhook": "discord" + ".com/api/webhooks/123456789012345678/" + MIXED[:68],
    "stripe_key": "sk" + "_live_" + MIXED[:24],
    "google_api_key": "AIza" + MIXED[:35],
    "google_oauth_secret": "GOCSPX" + "-" + MIXED[:28],
    "google_oauth_token": "ya29" + "." + MIXED[:60],
    "sendgrid_key": "SG" + "." + MIXED[:22] + "." + MIXED[:43],
    "mailgun_key": "key" + "-" + HEX[:32],
    "mailchimp_key": HEX[:32] + "-us" + "12",
    "npm_token": "npm" + "_" + MIXED[:36],
    "pypi_token": "pypi" + "-AgEIcHlwaS5vcmc" + MIXED[:60],
    "digitalocean_token": "dop" + "_v1_" + HEX[:64],
    "hugging_face_token": "hf" + "_" + MIXED[:34],
    "databricks_token": "dapi" + HEX[:32],
    "azure_storage_key": "Account" + "Key=" + MIXED[:86] + "==",
    "azure_shared_access_signature": "sig" + "=" + MIXED[:43] + "=",
    "groq_key": "gsk" + "_" + MIXED[:52],
    "xai_key": "xai" + "-" + MIXED[:80],
    "perplexity_key": "pplx" + "-" + MIXED[:48],
    "replicate_token": "r8" + "_" + MIXED[:37],
    "shopify_token": "shpat" + "_" + HEX[:32],
    "square_token": "sq0atp" + "-" + MIXED[:22],
    "telegram_bot_token": "123456789" + ":AA" + MIXED[:33],
    "vault_token": "hvs" + "." + MIXED[:24],
    "docker_token": "dckr" + "_pat_" + MIXED[:27],
    "grafana_token": "glsa" + "_" + MIXED[:32] + "_" + HEX[:8],
    "new_relic_key": "NRAK" + "-" + MIXED[:27].upper(),
    "sentry_token": "sntrys" + "_" + MIXED[:60],
    "atlassian_token": "ATATT3" + MIXED[:60],
    "linear_key": "lin" + "_api_" + MIXED[:40],
    "notion_token": "ntn" + "_" + MIXED[:46],
    "supabase_token": "sbp" + "_" + HEX[:40],
    "age_secret_key": "AGE-SECRET" + "-KEY-1" + MIXED[:58].upper(),
    "control_plane_key": "lcp" + "_abcd1234_" + MIXED[:43] + "_a1B2c3",
    "json_web_token": "eyJ" + "hbGciOiJIUzI1NiJ9." + "eyJzdWIiOiIxMjM0NTY3ODkwIn0." + MIXED[:43],
    "credentials_in_url": "postgres" + "://app:s3cret" + "@db.example.com",
}

BESIDE_A_WORD = [
    ("password: {}", "hunter" + "2!"),
    ("PASSWORD={}", "P@ss" + "w0rd"),
    ("my password is {}", "Summer" + "2024!"),
    ('{{"password": "{}"}}', "Tr0ub4dor" + "&3"),
    ("DB_PASSWORD={} # live", "x9" + "Kq27vLmZ"),
    ("Passwort: {}", "Geheim" + "123"),
    ("mot de passe : {}", "Soleil" + "75!"),
    ("contraseña: {}", "Verano" + "2024"),
    ("api_key = '{}'", MIXED[:24]),
    ("apikey: {}", HEX[:32]),
    ("client-secret={}", MIXED[:30]),
    ("ACCESS_TOKEN={}", MIXED[:30]),
    ("Authorization: Bearer {}", MIXED[:32]),
    ("Authorization: Basic {}", "dXNlcjpw" + "YXNzd29yZA=="),
    ("aws_secret_access_key = {}", "wJalrXUtnFEMI/K7MDENG/" + "bPxRfiCYEXAMPLEKEY"),
    ("twilio auth AC{{}}: {}", "AC" + HEX[:32]),
]

NO_SECRETS = [
    "password is required",
    "password: ********",
    "password = get_password(config)",
    "password=${DB_PASSWORD}",
    "PASSWORD=<your-password>",
    "api_key = os.environ['API_KEY']",
    "api_key: your_api_key_here",
    "token: see-the-manual",
    "max_tokens: 4096",
    "The secret of success is perseverance.",
    "the secret is to begin early",
    "commit 3f786850e387550fdab836ed7e6dc881de23001b",
    "sha256:" + HEX[:64],
    "550e8400-e29b-41d4-a716-446655440000",
    "ISBN 978-0-306-40615-7",
    "order 4711-0815, invoice 2024/12/345",
    "2024-01-15T10:30:00.123456Z",
    "$1,234.56 or 99.90 EUR",
    "sk-learn and sk-image are libraries",
    "https://example.com/path?query=1#fragment",
    "https://user:<password>@example.com",
    "-----BEGIN PUBLIC KEY-----\nMIIBIjANBgkqhkiG9w0BAQEFAAOC\n-----END PUBLIC KEY-----",
    "A file that starts with -----BEGIN PRIVATE KEY----- holds a key.",
    "AKIA is a prefix",
    "Lorem ipsum dolor sit amet, consectetur adipiscing elit",
    "password: john@example.com",
]


@pytest.mark.parametrize(("rule", "secret"), FORMATS.items())
def test_a_known_format_is_found_as_a_whole(rule: str, secret: str) -> None:
    assert spans(f"use ({secret}), please", Detector.SECRET) == [secret], rule


@pytest.mark.parametrize(("context", "secret"), BESIDE_A_WORD)
def test_a_value_beside_a_word_for_a_secret_is_found(context: str, secret: str) -> None:
    assert spans(context.format(secret), Detector.SECRET) == [secret]


@pytest.mark.parametrize("text", NO_SECRETS)
def test_words_templates_and_identifiers_are_no_secrets(text: str) -> None:
    assert spans(text, Detector.SECRET) == []


@pytest.mark.parametrize("joint", ["\n", "\r\n", "\\n"])
def test_a_private_key_is_found_from_its_first_line_to_its_last(joint: str) -> None:
    body = joint.join([MIXED[:64]] * 3)
    key = "-----BEGIN RSA " + f"PRIVATE KEY-----{joint}{body}{joint}-----END RSA " + "PRIVATE KEY-----"
    assert redacted(f"a {key} b") == "a [SECRET] b"


def test_a_private_key_that_was_cut_off_is_found_as_far_as_it_goes() -> None:
    assert redacted("-----BEGIN " + f"PRIVATE KEY-----\n{MIXED[:64]}\n{MIXED[:40]}") == "[SECRET]"


def test_a_hexadecimal_id_is_a_twilio_key_only_beside_the_name() -> None:
    assert spans("AC" + HEX[:32], Detector.SECRET) == []
