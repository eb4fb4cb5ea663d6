"""System calls of any program as OpenTelemetry spans, measured in the kernel with BPF."""

__version__ = "0.1.0"
