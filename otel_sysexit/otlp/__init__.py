"""Everything that knows OTLP: calls and spans → bytes → a collector or a file."""
