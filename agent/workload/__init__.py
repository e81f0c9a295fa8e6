"""Runs the protected application under a guardian process, watches its health and runs the hooks (see README.md)."""
