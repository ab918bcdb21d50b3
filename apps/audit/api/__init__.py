"""The JSON API of what happened: request records and their search and export, change records, and usage in sums."""
