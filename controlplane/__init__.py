"""The project: settings, addresses, servers and commands."""
