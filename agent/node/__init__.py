"""The composition root: configuration in, one tree of tasks out. Here, and only here, the parts meet."""
