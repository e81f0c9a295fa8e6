"""`pair-agent trust`: the other node's certificate, from a file or pasted, shown and confirmed."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from agent.cli import config_option
from agent.core.errors import CredentialError, PairAgentError

if TYPE_CHECKING:
    from cryptography.x509 import Certificate

PASTE_BYTES_MAX = 262_144


@click.command()
@click.argument("file", required=False, metavar="[FILE|-]")
@click.option("--yes", is_flag=True, help="Do not ask; the fingerprint was compared before.")
@click.option("--replace", is_flag=True, help="Trust this certificate only; the former file is kept as .bak.")
@click.option("--forget-pair", is_flag=True, help="Let this node, its agent stopped, join another pair.")
@config_option
def trust(file: str | None, yes: bool, replace: bool, forget_pair: bool, config_path: Path | None) -> None:
    """Trust the other node's certificate, as `pair-agent cert show` prints it there.

    Shows its fingerprint and asks. A further certificate is added beside the former one, so that certificates can be
    renewed without outage. A running agent uses it from its next start.

    \b
    Example:
      pair-agent trust                  paste it, then an empty line
      pair-agent trust line-4-b.crt
      pair-agent trust - < line-4-b.crt --yes
      pair-agent trust --forget-pair    nothing is pasted; the next peer makes a new pair
    """
    if forget_pair and (file is not None or replace):
        raise click.UsageError("--forget-pair takes no certificate: give it alone, then trust the new peer's.")
    from agent.config.load import examine_config, find_config_path
    from agent.config.trusted import apply_trust, plan_trust

    examination = examine_config(find_config_path(config_path, os.environ), os.environ)
    if forget_pair:
        from agent.node.record_store import forget_pair as forget

        was_paired = forget(examination.state_directory)
        click.echo("This node belongs to no pair now." if was_paired else "This node belonged to no pair.")
        return
    pasted_here = file in (None, "-") and _on_terminal()
    text = _read_paste() if pasted_here else _read_text(file or "-")
    change = plan_trust(examination, text, replace=replace)
    if not change.is_needed:
        click.echo(f"Already trusted in {change.path}; nothing changed.")
        return
    for certificate in change.new:
        _show(certificate)
    removed = [certificate for certificate in change.before if certificate not in change.after]
    if removed:
        click.echo(f"No longer trusted afterwards: {_names(removed)}")
    if not yes:
        if file in (None, "-") and not pasted_here:
            raise PairAgentError(
                "The certificate came through standard input, so there is nobody to ask. Compare the fingerprint with "
                "`pair-agent cert show --fingerprint` on the other node, then repeat with --yes."
            )
        click.echo("Compare the fingerprint with `pair-agent cert show --fingerprint` on the other node.")
        if not click.confirm("Is it the same, and is this the other node's certificate?"):
            raise PairAgentError("Not trusted; nothing changed.")
    backup = apply_trust(change)
    if backup is not None:
        click.echo(f"The former file is kept as {backup}")
    count = len(change.after)
    click.echo(f"Trusted. {change.path} holds {count} certificate{'s' if count > 1 else ''}.")


def _on_terminal() -> bool:
    return sys.stdin is not None and sys.stdin.isatty()


def _show(certificate: Certificate) -> None:
    import datetime

    from agent.link.certificates import validity_finding
    from agent.link.identity import certificate_name, fingerprint

    click.echo(f"Name         {certificate_name(certificate)}")
    click.echo(f"SHA-256      {fingerprint(certificate)}")
    begin, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    click.echo(f"Valid        {begin:%Y-%m-%d} to {end:%Y-%m-%d} (UTC)")
    if problem := validity_finding(certificate, datetime.datetime.now(datetime.UTC)):
        click.echo(f"Warning      it {problem}")


def _names(certificates: list[Certificate]) -> str:
    from agent.link.identity import certificate_name, fingerprint

    return ", ".join(
        f"{certificate_name(certificate)} ({fingerprint(certificate)[:11]}...)" for certificate in certificates
    )


def _read_text(file: str) -> str:
    try:
        with click.open_file(file, "rb") as stream:
            data = stream.read(PASTE_BYTES_MAX + 1)
    except FileNotFoundError:
        raise CredentialError(f"{file} does not exist; name the file that `pair-agent cert show` wrote") from None
    except OSError as error:
        raise CredentialError(f"{file} cannot be read: {error.strerror}") from None
    name = "standard input" if file == "-" else file
    if len(data) > PASTE_BYTES_MAX:
        raise CredentialError(f"{name} is larger than {PASTE_BYTES_MAX} bytes; that is no certificate")
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        # What Windows PowerShell writes with ">".
        return bytes(data).decode("utf-16", errors="replace")
    try:
        return bytes(data).decode("utf-8-sig")
    except UnicodeDecodeError:
        raise CredentialError(f"{name} is not PEM text; export it as Base-64 (PEM), not as DER or PFX") from None


def _read_paste() -> str:
    """Reads lines from the terminal until an empty line after the end of a certificate, or the end of input."""
    click.echo(
        "Paste the other node's certificate (from `pair-agent cert show` there), then press Enter on an empty line:"
    )
    lines: list[str] = []
    size = 0
    while size <= PASTE_BYTES_MAX:
        line = sys.stdin.readline()
        if not line:
            break
        if not line.strip() and any("END " in before for before in lines):
            break
        lines.append(line)
        size += len(line)
    return "".join(lines)
