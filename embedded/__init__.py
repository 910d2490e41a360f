"""The part of CouchDB 3's HTTP protocol that ibmcloudant and mjumbe use, on SQLite, for a machine without a CouchDB.

The package stands for somebody else's server: it imports nothing of ours, and nothing of ours imports its inside.
`embedded.server.serve` and `python -m embedded` start it. What it does not speak it refuses with 501 and a sentence.
"""
