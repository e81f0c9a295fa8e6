"""Every error that the product raises on purpose, as one tree.

    PairAgentError                 a sentence for the operator; what the command line prints instead of a traceback
      ConfigurationError           agent.toml, the environment, certificates named there: exit code 2
      CredentialError              a certificate or key that cannot be used, or a paste that is none: exit code 2
      StateError                   the state directory: locked, damaged, not writable
      TreeError                    a replicated tree cannot be used as it stands: missing, of another kind, unreadable
      WorkloadError                the protected application could not be started or stopped
      ApiError                     the local HTTP API answered with an error, or nobody answered (exit code 3)
      PeerError                    the other end broke the protocol, or is not who it should be; ends the session only

What is expected (refused, timed out, peer gone) is an event, never one of these.
"""

from __future__ import annotations


class PairAgentError(Exception):
    """A failure with a sentence that names what was found, what is allowed and the way out."""


class ConfigurationError(PairAgentError):
    """The configuration cannot be used; `findings` holds every finding as its own sentence."""

    def __init__(self, findings: list[str]) -> None:
        super().__init__("\n".join(findings))
        self.findings = findings


class CredentialError(PairAgentError):
    """A certificate, key or pasted text that cannot be used."""


class StateError(PairAgentError):
    """The state directory cannot be used."""


class TreeError(PairAgentError):
    """A replicated tree cannot be used as it stands on this node."""


class WorkloadError(PairAgentError):
    """The workload could not be started or stopped."""


class ApiError(PairAgentError):
    """The running agent could not be asked, or refused; `agent_running` tells the two apart."""

    def __init__(self, sentence: str, *, agent_running: bool) -> None:
        super().__init__(sentence)
        self.agent_running = agent_running


class PeerError(PairAgentError):
    """The other end of a connection broke the protocol (PROTOCOL.md); `code` is the refusal code it is told."""

    def __init__(self, sentence: str, *, code: str = "protocol") -> None:
        super().__init__(sentence)
        self.code = code
