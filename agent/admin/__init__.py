"""The local HTTP API, the event log and the verdicts shown there; see README.md."""
