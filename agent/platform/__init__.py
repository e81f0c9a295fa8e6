"""What differs between Windows and Linux, behind one interface (see README.md)."""
