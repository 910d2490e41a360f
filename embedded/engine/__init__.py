"""The store under the protocol: SQLite files, revisions, view indexes. Knows nothing of HTTP but its errors' names."""
