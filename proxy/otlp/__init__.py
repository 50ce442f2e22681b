"""OpenTelemetry: spans as exporters send them, read as what applications hand in. Pure."""
