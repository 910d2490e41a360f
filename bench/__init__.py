"""The benchmark: what mjumbe does in a second, beside what the machine under it could do (docs/performance.md)."""
