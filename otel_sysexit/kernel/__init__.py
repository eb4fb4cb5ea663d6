"""Everything that knows BPF: load the programs, map their rings, read and update their maps."""
