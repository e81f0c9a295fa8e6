"""The demo: a whole pair on this machine, a fault, and what it cost, measured by the protected application itself."""
