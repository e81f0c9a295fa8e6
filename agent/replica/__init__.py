"""Trees kept in step: what stands in them, what the other node lacks, and how it gets there without a loss."""
