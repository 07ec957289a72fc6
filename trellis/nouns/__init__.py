"""The client's verbs, one class a noun: `client.jobs`, `client.nodes`, ..."""
