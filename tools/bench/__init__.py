"""Benchmarks: every figure is a ratio to something measured in the same run.

    .venv/bin/python -m tools.bench            # the table, about three minutes
    .venv/bin/python -m tools.bench --flat     # 10 thousand to 10 million entries, a minute or two
    .venv/bin/python -m tools.bench --reads    # reads over HTTP, and appends beside them
    .venv/bin/python -m tools.bench --records  # signed records, beside bare Ed25519
    .venv/bin/python -m tools.bench --audit 1000000    # full audits, end to end
    .venv/bin/python -m tools.bench --witness  # beside other witnesses, after `make interop`

Client and server share the machine. The no-op server is a grpc.aio unary handler with the same
options and messages that does nothing; the client sends requests that are already serialised, so
that what is measured is the server.
"""
