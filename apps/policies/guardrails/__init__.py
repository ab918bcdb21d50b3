"""Guardrails: which PII, secrets and injections a text holds, and the text without them. No I/O, no framework."""
