"""The trust policy of a log (c2sp.org/tlog-policy), kept as `policy` in its directory.

The same file serves whoever verifies the log: it names the log's own keys, the witnesses and the
quorum. The URLs in it are where the log submits its heads.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tlog.log.errors import LogError
from tlog.notes import (
    MAX_POLICY_SIZE,
    MAX_SIGNATURES,
    NoteError,
    Policy,
    VerifierKey,
    parse_policy,
)

FILE_NAME = "policy"


def load_policy(directory: Path, vkeys: Sequence[VerifierKey]) -> Policy | None:
    """Read the policy of the log with these keys; None when it has none.

    Raises:
        LogError: the file is not a policy, or not one that this log could ever meet.
    """
    path = directory / FILE_NAME
    try:
        with path.open("rb") as file:
            data = file.read(MAX_POLICY_SIZE + 1)
    except FileNotFoundError:
        return None
    try:
        policy = parse_policy(data)
        _check(policy, vkeys)
    except (LogError, NoteError) as error:
        raise LogError(f"{path}: {error}") from None
    return policy


def policy_text(directory: Path, vkeys: Sequence[VerifierKey]) -> bytes:
    """What to give to whoever verifies the log: its policy, or one of its keys alone.

    Raises:
        OSError: it cannot be read.
    """
    try:
        return (directory / FILE_NAME).read_bytes()
    except FileNotFoundError:
        return "".join([*(f"log {vkey}\n" for vkey in vkeys), "quorum none\n"]).encode()


def policy_of(data: bytes, vkeys: Sequence[VerifierKey]) -> bytes:
    """A policy without lines of this log, completed with them.

    Raises:
        NoteError: it is not a policy.
        LogError: it names this log already, or a quorum that cannot be asked.
    """
    origin = vkeys[0].name
    if any(log.vkey.name == origin for log in parse_policy(data).logs):
        raise LogError(
            f"the policy has a `log` line for {origin!r}, whose keys are only made now: take the "
            "line out, the new keys are put in its place"
        )
    # SPEC tlog-policy: "Lines defining witnesses and logs can appear in any order".
    complete = "".join(f"log {vkey}\n" for vkey in vkeys).encode() + data
    _check(parse_policy(complete), vkeys)
    return complete


def _check(policy: Policy, vkeys: Sequence[VerifierKey]) -> None:
    named = [log.vkey for log in policy.logs if log.vkey.name == vkeys[0].name]
    if foreign := [vkey for vkey in named if vkey not in vkeys]:
        raise LogError(
            f"the policy gives this log the key {foreign[0].label}, which it does not have. Its "
            f"lines must be: {_lines(vkeys)}"
        )
    if not named:
        raise LogError(
            "the policy does not name this log, so that nobody could verify it with this file. "
            f"Add: {_lines(vkeys)}"
        )
    if (count := len(policy.witnesses) + len(vkeys)) > MAX_SIGNATURES:
        raise LogError(
            f"{count} keys of the log and its witnesses: a checkpoint holds at most "
            f"{MAX_SIGNATURES} signatures"
        )
    # SPEC tlog-policy: the URL "is required for operations interacting with the log or witness".
    if not policy.satisfied_by([witness.name for witness in policy.witnesses if witness.url]):
        without = ", ".join(repr(witness.name) for witness in policy.witnesses if not witness.url)
        raise LogError(
            f"the quorum {policy.quorum!r} could never be met: no URL is given for {without}. Add "
            "it at the end of the witness's line"
        )


def _lines(vkeys: Sequence[VerifierKey]) -> str:
    return " and ".join(f"`log {vkey}`" for vkey in vkeys if len(str(vkey)) < 200)
