"""Rate limits: requests, tokens and concurrent requests over sliding windows.

`base` holds the interface and its words, `memory` serves one process, `redis` serves many, and `fallback` says what
happens while Redis does not answer.
"""
