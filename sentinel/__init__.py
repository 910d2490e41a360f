"""The process that follows `_changes`, moves each SMS through its states and sends it."""
