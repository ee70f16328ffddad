"""lemond-adapter."""
