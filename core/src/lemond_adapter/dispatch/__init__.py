"""The data plane: from a client's request to the process that is proven to serve its model."""
