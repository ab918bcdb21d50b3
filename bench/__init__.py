"""Measurements of the request's path, each beside a bare pass-through in the same run. See README.md."""
