"""`make demo`: what the log promises, shown in a minute, in a directory that is thrown away."""

from __future__ import annotations

import tempfile
from pathlib import Path

from tools.session import Shell, say

HTTP = ("--http", "127.0.0.1:0")


def main() -> None:
    """Make a directory for it and clean up."""
    with tempfile.TemporaryDirectory(prefix="tlog-demo-") as directory:
        demo(Shell(Path(directory)))


def demo(shell: Shell) -> None:
    """Append, prove, verify offline, forge, restart, check everything."""
    lines, entry, proof = (shell.directory / name for name in ("lines", "entry", "proof"))
    say("A log has a directory, an origin, and two verifier keys:")
    shell.tlog("init", "log", "--origin", "demo.example/log")
    shell.export({"XDG_STATE_HOME": str(shell.directory / "state")})
    server = shell.start("serve", "log", "--grpc", "127.0.0.1:0", *HTTP)
    try:
        address = server.ready["grpc"]
        # Both keys: then every bit of a receipt counts, of both signatures too.
        vkeys = " ".join(server.ready["logs"][0]["vkeys"])
        shell.export({"TLOG_SERVER": address, "TLOG_VKEY": vkeys})
        say("\nOne thousand entries, and one whose receipt we keep:")
        lines.write_text("".join(f"record {number}\n" for number in range(1000)))
        entry.write_text("Alice signed the contract")
        shell.tlog("append", "--lines", "lines")
        shell.tlog("append", "--file", "entry", "--proof", "proof")
        say("\nThe receipt verifies offline, with nothing but the log's public keys:")
        shell.tlog("verify", "proof", "entry")
        say("\nOne bit changed in the entry, or in the receipt, and it does not:")
        for file in (entry, proof):
            flip_bit(file)
            shell.tlog("verify", "proof", "entry", expect=3)
            flip_bit(file)
        say("\nThe client remembers the last head it saw. After a restart the server must prove")
        say("that its log continues that one, or the client refuses it:")
        server.stop()
        server = shell.start("serve", "log", "--grpc", address, *HTTP)
        shell.tlog("append", "--wait", "published", "Bob signed too")
        shell.tlog("checkpoint")
    finally:
        server.stop()
    say("\nAnd at rest, every entry is re-hashed and held against the signed head:")
    shell.tlog("fsck", "log")


def flip_bit(file: Path) -> None:
    """Flip one bit in the middle of a file."""
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)


if __name__ == "__main__":
    main()
