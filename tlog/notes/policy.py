"""Trust policies: which logs, which witnesses, and how many of them. SPEC tlog-policy.

Names are opaque octets: `str` decoded as UTF-8 with `surrogateescape`, which maps different octets
to different strings. Show them with `repr()` or `ascii()`, never raw.
"""

import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from tlog.notes.checkpoint import Checkpoint, VerifiedCheckpoint, open_checkpoint
from tlog.notes.codec import parse_decimal, shown
from tlog.notes.errors import NoteError
from tlog.notes.keys import Algorithm, VerifierKey

MAX_POLICY_SIZE = 1024 * 1024
MAX_AHEAD = 60
"""Seconds that a witness's clock may be ahead of ours before a cosignature is not called fresh."""
NONE = "none"

# SPEC tlog-policy: "the allowed octet values are 0x09 (tab), 0x0A (newline), 0x20-0x7E, and
# 0x80-0xFF", and whitespace "means sequences of ASCII space and tab characters only".
_FORBIDDEN = re.compile(rb"[^\t\n\x20-\x7e\x80-\xff]")
_WHITESPACE = re.compile(rb"[ \t]+")


@dataclass(frozen=True, slots=True)
class PolicyLog:
    """A `log` line. The key's name is the log's origin."""

    vkey: VerifierKey
    url: str | None = None


@dataclass(frozen=True, slots=True)
class PolicyWitness:
    """A `witness` line. `name` has no meaning outside of the policy."""

    name: str
    vkey: VerifierKey
    url: str | None = None


@dataclass(frozen=True, slots=True)
class PolicyGroup:
    """A `group` line: witnessed when at least `threshold` of its members are."""

    name: str
    threshold: int
    members: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Weighed:
    """What a policy says of verified cosignatures.

    `cosigned_by` are the names of witnesses whose cosignatures count, `stale` of those whose time
    is not within the policy's `max_age`, both in the policy's order; `reason` is one line for an
    operator: who cosigned, and what is missing.
    """

    cosigned_by: tuple[str, ...]
    stale: tuple[str, ...]
    satisfied: bool
    reason: str


@dataclass(frozen=True, slots=True)
class Verdict(Weighed):
    """What a policy says of a checkpoint that one of its logs signed."""

    verified: VerifiedCheckpoint

    @property
    def checkpoint(self) -> Checkpoint:
        """The verified checkpoint; whether it is to be trusted, `satisfied` says."""
        return self.verified.checkpoint


@dataclass(frozen=True, slots=True)
class Policy:
    """A trust policy, as `parse_policy` reads it; groups only name what precedes them.

    `max_age` is how many seconds a cosignature counts after its time; None: for ever. It is not
    part of the file, where no line could say it: SPEC tlog-policy defines four keywords, and
    comments "are allowed and ignored". Whoever verifies demands it: `with_max_age`.
    """

    logs: tuple[PolicyLog, ...]
    witnesses: tuple[PolicyWitness, ...]
    groups: tuple[PolicyGroup, ...]
    quorum: str
    max_age: float | None = None

    def with_max_age(self, seconds: float | None) -> "Policy":
        """The same policy, demanding that the quorum cosigned within the last `seconds`.

        Raises:
            NoteError: not a positive number, or there is no quorum whose time could be known.
        """
        if seconds is not None and not 0 < seconds < float("inf"):
            raise NoteError(f"a maximum age of {seconds:g} seconds: it must be more than 0")
        if seconds is not None and self.quorum == NONE:
            raise NoteError(
                "a maximum age needs a quorum of witnesses: without one nobody says how fresh a "
                "checkpoint is"
            )
        return replace(self, max_age=seconds)

    def satisfied_by(self, names: Collection[str]) -> bool:
        """Whether the witnesses of these names are strong enough a quorum."""
        return self.quorum == NONE or self.quorum in self._witnessed(names)

    def evaluate(self, data: bytes, *, now: float | None = None) -> Verdict:
        """Verify a signed checkpoint against the logs, and weigh its cosignatures.

        Args:
            data: the signed note.
            now: POSIX time in seconds; needed when the policy has a `max_age`.

        Raises:
            NoteError: malformed; not signed by one of the logs under its own name; or a
                signature of any key of this policy does not verify.
        """
        vkeys = [log.vkey for log in self.logs] + [witness.vkey for witness in self.witnesses]
        # `open_checkpoint` wants a key whose name is the origin. SPEC tlog-policy: the vkey's
        # "name MUST correspond to the log's origin line". A witness of that name is not the log.
        verified = open_checkpoint(data, vkeys)
        signers = dict(verified.signed_by)
        origin = verified.checkpoint.origin
        if not any(log.vkey in signers and log.vkey.name == origin for log in self.logs):
            raise NoteError(f"the checkpoint of {shown(origin)} is not signed by one of the logs")
        weighed = self.weigh(signers, now=now)
        return Verdict(
            weighed.cosigned_by, weighed.stale, weighed.satisfied, weighed.reason, verified
        )

    def weigh(
        self, signed_by: Mapping[VerifierKey, int | None], *, now: float | None = None
    ) -> Weighed:
        """Weigh cosignatures that are verified already, given as keys with their timestamps."""
        cosigned, ages = [], {}
        for witness in self.witnesses:
            if witness.vkey not in signed_by:
                continue
            if (wrong := self._not_fresh(signed_by[witness.vkey] or 0, now)) is None:
                cosigned.append(witness.name)
            else:
                ages[witness.name] = wrong
        return Weighed(
            tuple(cosigned), tuple(ages), self.satisfied_by(cosigned), self._reason(cosigned, ages)
        )

    def _not_fresh(self, timestamp: int, now: float | None) -> str | None:
        """Why a cosignature of that time does not count; None if it does."""
        if self.max_age is None:
            return None
        if now is None:
            raise ValueError("a policy with a maximum age needs to know the time")
        # SPEC tlog-cosignature: with a timestamp of zero nothing is said of the time.
        if timestamp == 0:
            return "at no time that it says"
        age = now - timestamp
        if age < -MAX_AHEAD:
            return f"{duration(-age)} in the future"
        return f"{duration(age)} ago" if age > self.max_age else None

    def open(self, data: bytes, *, now: float | None = None) -> Verdict:
        """As `evaluate`, and raise NoteError with the reason unless the quorum is met."""
        verdict = self.evaluate(data, now=now)
        if not verdict.satisfied:
            raise NoteError(verdict.reason)
        return verdict

    def _witnessed(self, names: Collection[str]) -> set[str]:
        # One pass and no recursion: a group's members are defined before it.
        witnessed = {witness.name for witness in self.witnesses}.intersection(names)
        for group in self.groups:
            if sum(member in witnessed for member in group.members) >= group.threshold:
                witnessed.add(group.name)
        return witnessed

    def _reason(self, cosigned: Sequence[str], ages: Mapping[str, str]) -> str:
        by = f"cosigned by {', '.join(map(repr, cosigned)) or 'no witness'}"
        if ages and self.max_age is not None:
            stale = ", ".join(f"by {name!r} {age}" for name, age in ages.items())
            by += f" in the last {duration(self.max_age)} ({stale})"
        if self.satisfied_by(cosigned):
            return f"quorum {self.quorum!r} is met: {by}"
        return f"quorum {self.quorum!r} is not met: {by}; {'; '.join(self._missing(cosigned))}"

    def _missing(self, cosigned: Sequence[str]) -> Iterator[str]:
        """What would have to change, from the quorum down to its witnesses."""
        witnessed = self._witnessed(cosigned)
        groups = {group.name: group for group in self.groups}
        pending = [self.quorum]
        while pending:
            group = groups.get(pending.pop(0))
            if group is None:
                continue
            absent = [member for member in group.members if member not in witnessed]
            have = len(group.members) - len(absent)
            yield (
                f"{group.name!r} has {have} of the {group.threshold} it needs, "
                f"missing {', '.join(map(repr, absent))}"
            )
            pending += absent
        if self.quorum not in groups:
            yield f"missing {self.quorum!r}"


def duration(seconds: float) -> str:
    """A length of time, for people: its two largest units."""
    parts, left = [], int(seconds)
    for unit, name in ((86_400, "d"), (3600, "h"), (60, "min"), (1, "s")):
        count, left = divmod(left, unit)
        if count:
            parts.append(f"{count} {name}")
    return " ".join(parts[:2]) or f"{seconds:g} s"


def parse_policy(data: bytes) -> Policy:
    """Read a policy file of at most 1 MiB.

    Raises:
        NoteError: with the line, for everything that tlog-policy does not allow. A last line
            without its newline is refused too: a file cut short could mean something else.
    """
    if len(data) > MAX_POLICY_SIZE:
        raise NoteError(f"a policy of {len(data)} bytes, the limit is {MAX_POLICY_SIZE}")
    if found := _FORBIDDEN.search(data):
        number = data.count(b"\n", 0, found.start()) + 1
        raise NoteError(f"policy, line {number}: the octet 0x{found[0].hex()} is not allowed")
    if data and not data.endswith(b"\n"):
        raise NoteError("policy: the last line does not end in a newline: is the file cut short?")
    reader = _Reader()
    for number, line in enumerate(data.split(b"\n"), 1):
        items = _WHITESPACE.split(line.strip(b" \t"))
        if items[0] and not items[0].startswith(b"#"):
            try:
                reader.read(*(item.decode("utf-8", "surrogateescape") for item in items))
            except NoteError as error:
                raise NoteError(f"policy, line {number}: {error}") from None
    return reader.policy()


@dataclass(slots=True)
class _Reader:
    """The definitions read so far."""

    logs: list[PolicyLog] = field(default_factory=list)
    witnesses: list[PolicyWitness] = field(default_factory=list)
    groups: list[PolicyGroup] = field(default_factory=list)
    quorum: str | None = None
    names: set[str] = field(default_factory=set)  # of witnesses and groups: one namespace
    members: set[str] = field(default_factory=set)  # of any group
    log_keys: set[bytes] = field(default_factory=set)
    witness_keys: set[bytes] = field(default_factory=set)

    def read(self, keyword: str, *items: str) -> None:
        verbs: dict[str, tuple[Callable[..., None], int, float, str]] = {
            "log": (self._log, 1, 2, "log <vkey> [<url>]"),
            "witness": (self._witness, 2, 3, "witness <name> <vkey> [<url>]"),
            "group": (self._group, 3, float("inf"), "group <name> all|any|<k> <name>..."),
            "quorum": (self._quorum, 1, 1, "quorum <name>"),
        }
        if keyword not in verbs:
            raise NoteError(f"{shown(keyword)} is not one of log, witness, group, quorum")
        define, least, most, form = verbs[keyword]
        if not least <= len(items) <= most:
            raise NoteError(f"{len(items)} items after {keyword!r}, expected `{form}`")
        define(*items)

    def policy(self) -> Policy:
        # SPEC tlog-policy: "A policy file must include exactly one quorum line."
        if self.quorum is None:
            raise NoteError("policy: no quorum line; `quorum none` asks for no cosignature")
        return Policy(tuple(self.logs), tuple(self.witnesses), tuple(self.groups), self.quorum)

    def _log(self, vkey: str, url: str | None = None) -> None:
        # SPEC tlog-checkpoint lets a log sign with any algorithm.
        key = _unique(vkey, self.log_keys, "log")
        self.logs.append(PolicyLog(key, url))

    def _witness(self, name: str, vkey: str, url: str | None = None) -> None:
        key = _unique(vkey, self.witness_keys, "witness")
        if key.algorithm is Algorithm.ED25519:
            # SPEC tlog-policy: "keys must use a signature type appropriate" to the function.
            raise NoteError(
                f"{key.label} does not cosign: a witness has a key of type 0x04 or 0x06"
            )
        self._define(name)
        self.witnesses.append(PolicyWitness(name, key, url))

    def _group(self, name: str, threshold: str, *members: str) -> None:
        for member in members:
            # SPEC tlog-policy: `none` "is invalid as a group member".
            if member == NONE:
                raise NoteError("`none` cannot be a member of a group")
            self._check_defined(member)
            # SPEC tlog-policy: "Each defined name can be listed as a group member at most once."
            if member in self.members:
                raise NoteError(f"{shown(member)} is already a member of a group")
            self.members.add(member)
        most = len(members)
        k = {"all": most, "any": 1}.get(threshold) or parse_decimal(threshold)
        if not 1 <= k <= most:
            raise NoteError(f"a threshold of {k}, with {most} members it must be 1 to {most}")
        self._define(name)
        self.groups.append(PolicyGroup(name, k, members))

    def _quorum(self, name: str) -> None:
        if self.quorum is not None:
            raise NoteError("a second quorum line")
        if name != NONE:
            self._check_defined(name)
        self.quorum = name

    def _define(self, name: str) -> None:
        if name == NONE or name in self.names:
            raise NoteError(f"the name {shown(name)} is already defined")
        self.names.add(name)

    def _check_defined(self, name: str) -> None:
        if name not in self.names:
            raise NoteError(f"{shown(name)} is not defined on a line before this one")


def _unique(vkey: str, keys: set[bytes], what: str) -> VerifierKey:
    key = VerifierKey.parse(vkey.encode("utf-8", "surrogateescape"))
    # SPEC tlog-policy: duplicate "if they wrap the same underlying public key, even if they
    # differ by key name and key id".
    if key.public_key in keys:
        raise NoteError(f"the public key of {key.label} is already that of another {what}")
    keys.add(key.public_key)
    return key
