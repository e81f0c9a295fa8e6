"""`pair-agent key`: a strong pre-shared key."""

from __future__ import annotations

import secrets

import click

from agent.cli import unused_config_option

KEY_BYTES = 32


@click.group()
def key() -> None:
    """Make a pre-shared key, the optional second factor beside the certificates.

    \b
    Example:
      pair-agent key generate
    """


@key.command()
@unused_config_option
def generate() -> None:
    """Print a new key of 256 random bits, for [security] pre_shared_key on both nodes.

    \b
    Example:
      pair-agent key generate
    """
    click.echo(secrets.token_urlsafe(KEY_BYTES))
