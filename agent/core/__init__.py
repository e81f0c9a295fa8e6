"""Decisions without edges: no sockets, files, clocks, randomness, threads or trio in here."""
