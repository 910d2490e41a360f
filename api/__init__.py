"""HTTP in: authenticates, validates, writes documents, answers. Decides nothing."""
