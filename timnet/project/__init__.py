"""The project around the library: params.yaml, DVC, git, licences, provenance."""
