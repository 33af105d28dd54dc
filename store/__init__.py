"""The store: schema, engines, the answer. Knows nothing of sources or of commands."""
