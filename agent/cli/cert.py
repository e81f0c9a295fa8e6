"""`pair-agent cert`: this node's own certificate, for the other node."""

from __future__ import annotations

import os
from pathlib import Path

import click

from agent.cli import config_option


@click.group()
def cert() -> None:
    """Show this node's own certificate.

    \b
    Example:
      pair-agent cert show
    """


@cert.command()
@click.option("--fingerprint", "fingerprint_only", is_flag=True, help="Print the SHA-256 fingerprint only.")
@config_option
def show(fingerprint_only: bool, config_path: Path | None) -> None:
    """Print the certificate as PEM, ready to paste into `pair-agent trust` on the other node.

    A certificate is no secret. Compare its fingerprint with the one that the other node shows.

    \b
    Example:
      pair-agent cert show
      pair-agent cert show > line-4-a.crt
      pair-agent cert show --fingerprint
    """
    from agent.config.credentials import OWN_CERTIFICATE
    from agent.config.load import examine_config, find_config_path
    from agent.core.errors import ConfigurationError
    from agent.link.identity import certificate_name, certificate_pem, fingerprint, read_certificates_untrusted

    examination = examine_config(find_config_path(config_path, os.environ), os.environ)
    credential = examination.certificates.own_certificate
    if credential is None:
        about_it = [finding.sentence() for finding in examination.findings if finding.key == OWN_CERTIFICATE]
        missing = [f"{OWN_CERTIFICATE} is not set; `pair-agent init` makes a certificate"]
        raise ConfigurationError([f"{examination.source}: {sentence}" for sentence in about_it or missing])
    certificate = read_certificates_untrusted(credential.pem)[0]
    if fingerprint_only:
        click.echo(fingerprint(certificate))
        return
    # Beside the certificate, not in it: the output may go into a file.
    click.echo(f"{certificate_name(certificate)}, valid until {certificate.not_valid_after_utc:%Y-%m-%d}", err=True)
    click.echo(f"SHA-256 {fingerprint(certificate)}", err=True)
    click.echo(certificate_pem(certificate), nl=False)
