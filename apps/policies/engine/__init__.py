"""The pure policy engine: facts and policies in, a decision with its reasons out. No I/O, no clock, no framework."""
