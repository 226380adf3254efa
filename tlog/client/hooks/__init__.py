"""Records from the frameworks that applications are built with: one small file for each.

`asgi` and `wsgi` wrap an application, `grpc_server` and `grpc_client` are interceptors, `logs` is a
handler for `logging`. They speak the frameworks' protocols and import none of them but grpc. Each
asks the application what a request is, with a function that it gives and that answers with an
`Act`. `sqlalchemy` listens to sessions, needs `tlog[sqlalchemy]`, and is told why by `acting`.

They share the producer's rule: what cannot be recorded does not happen. The record of a request is
on the disk before the first byte of its answer leaves; without it there is an error and no answer.
What a caller sends becomes no public claim.
"""

from tlog.client.hooks.act import Act

__all__ = ["Act"]
