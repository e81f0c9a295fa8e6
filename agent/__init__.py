"""pair-agent: redundancy for the software that runs plants, lines and edge boxes."""

__version__ = "0.1.0"
