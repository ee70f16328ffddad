"""The service: the data plane, the slots and the event stream on one port."""
