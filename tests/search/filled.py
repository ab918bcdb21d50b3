"""Many records at once, made by the database, as if an organization had been served for a month."""

from uuid import UUID

from django.db import connection

WORDS_OF_EACH = 40
_ID = (
    "(lpad(to_hex(m), 12, '0') || '7' || lpad(to_hex(n %% 4096), 3, '0') || '8' || "
    "lpad(to_hex(floor(random() * 281474976710655)::bigint), 15, '0'))::uuid"
)
_RECORDS = f"""
INSERT INTO audit_requestrecord (id, timestamp, organization_id, organization_name, application_id, application_name,
    user_id, user_name, api_key_id, api_key_prefix, end_user, endpoint, model, provider, upstream_model, streamed,
    status, http_status, error_code, error_message, tokens_input, tokens_output, tokens_cached, usage_source,
    cost_nano_usd, overrun_nano_usd, price, latency_ms, first_byte_ms, metadata, reasons, policies, findings, limits,
    attempts, degraded, prompt_hash, response_hash)
SELECT {_ID}, to_timestamp(m / 1000.0), %(organization)s, 'Many', NULL, 'app', NULL, '', NULL, 'Abcdefgh',
    '', 'chat.completions', 'gpt-' || n %% 20, 'openai', 'gpt', false,
    CASE WHEN n %% 1000 = 0 THEN 'blocked' ELSE 'success' END, 200, '', '', 100, 50, 0, 'provider', n %% 100000, 0,
    '{{}}', 350, NULL, jsonb_build_object('ticket', n::text), '[]',
    '[{{"id": "6f1e3f0a-0000-4000-8000-000000000001", "version": 1, "name": "p"}}]',
    CASE WHEN n %% 5000 = 0 THEN '[{{"detector": "email"}}]'::jsonb ELSE '[]'::jsonb END, '[]', '[]', '[]', '', ''
FROM (SELECT n, %(from_ms)s + n * %(span_ms)s / %(count)s AS m FROM generate_series(0, %(count)s - 1) n) made
"""
_TEXTS = f"""
INSERT INTO audit_requesttext (id, organization_id, prompt_redacted, response_redacted)
SELECT id, organization_id, (SELECT string_agg('word' || floor(random() * 20000)::int, ' ')
    FROM generate_series(1, {WORDS_OF_EACH}) WHERE id IS NOT NULL) ||
    CASE WHEN (metadata->>'ticket')::int = 7 THEN ' needle' ELSE '' END, 'the answer'
FROM audit_requestrecord WHERE organization_id = %(organization)s
"""


def fill(organization_id: UUID, count: int, from_ms: int, span_ms: int) -> None:
    """Insert so many records with texts, spread over ``span_ms`` from ``from_ms`` on. One says "needle"."""
    values = {"organization": organization_id, "count": count, "from_ms": from_ms, "span_ms": span_ms}
    with connection.cursor() as cursor:
        cursor.execute(_RECORDS, values)
        cursor.execute(_TEXTS, values)
        cursor.execute("ANALYZE audit_requestrecord")
        cursor.execute("ANALYZE audit_requesttext")
