"""TOML and environment in, one validated `Config` out. README.md is the map of this folder."""
