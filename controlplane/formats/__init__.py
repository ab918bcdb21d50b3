"""How the admin writes what Django would write in each language's own way."""
