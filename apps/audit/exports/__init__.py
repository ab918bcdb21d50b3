"""Records written to files: orders for them, the formats, the place where files lie, and the work itself."""
