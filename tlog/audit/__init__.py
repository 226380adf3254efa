"""The records layer: who did what to whose data, when and why; provable, and erasable.

An event is made where it happens, as an SD-JWT (RFC 9901) that its producer signs (`event`, over
`sdjwt` and `jws`). What its type (`catalogue`, data in `catalogue.toml`) declares public stands in
the clear; all else is personal: salted digests, with the disclosures sent beside the signature.
What people signed may be in it, byte for byte (`documents`).

    SD-JWT ──verify──▶ leaf {JWS, time of receipt, tokens} ──▶ the log      (never personal)
              └──────▶ disclosures, sealed for each subject ──▶ the vault   (erasable)

Events and leaves are pure: no clock, no I/O. `producers` is the pure state machine of keys and
sequence numbers, rebuilt from the log alone. Two modules open databases and are imported by name,
never by what users import: `vault` (keys and sealed parts) and `records` (the write path).

One event, from receipt to answer, in `records.Records`; each step is durable before the next:

1. verify: signature (maybe in other processes: `verifying`; ahead of its round: `intake`), type,
   digests. A refused event leaves nothing behind, with all that it brought (`gathered`), and its
   place in its producer's sequence stays open: the next one shows the gap.
2. decide, against the state after the round before: duplicate, conflict, gap, repeat, clock.
   What the log has to say of it becomes events of its own, signed by the service's key.
3. the sealed parts go into the vault, marked pending by leaf hash;
4. the leaves go into the log: *this is the commit point*;
5. the marks are taken away, the event ids get their indices, and the callers their answer.

After a kill between 3 and 4 the marks have no leaves, and their parts are deleted, with the keys
that open nothing else: nothing was answered. Between 4 and 5 the leaves are read from the log
again, and step 5 is done for them. An event sent again is found by its id. Everything but keys and
parts is derived from the log.

**Tokens** (`tokens`) stand in the leaf, in epochs of a quarter. Evidence class: HMAC under the
tenant's key of the epoch; survives an erasure, as the record of a request must (11 CCR 7101).
Erasable class: HMAC under the subject's own random key, and dies with it. The type says which.

**Searching.** An index in SQLite (`index`) is derived from the leaves alone, and has no key. It
follows the log beside the recording (`indexer`), and is held against the tree: what is not this
log's is made anew. `search` makes tokens of the names that are asked for, opens what is found, and
records that (`reading`) before it is shown.

**A tenant** (`tenancy`, imported by name as well) lies in the directory of its log, with its keys.

**Requests.** What the law asks to be known of them is reckoned from public claims alone, by pure
functions that are imported by name (they load calendars): `cases` reads what became of each,
`deadlines` by when it had to, over the business days of `calendar`, and `report` counts a year,
with the entries behind each figure; `report_formats` writes that down. `docket` keeps up
with the log, and has all of it ready.

**Keys.** A tenant key (file, or the command of a KMS) wraps a random key for each subject, an
epoch key for each quarter, and the key of the directory from identifier to subject. A part about
one subject opens with that subject's key. What an event says of all its subjects opens with all
of their keys together: the first erasure takes it, so what must outlive the others belongs into
the part of its own subject.

To lose the tenant key is to erase everybody: `escrow` splits it into shares for several people, any
m of which give it back. That there are such shares is recorded (`log.tenant_key_escrowed`).

**Orders** (`orders`, pure) are documents that two approvers sign: to erase a subject, to place or
release a hold, to register an approver or rotate the key of one (`approvers`: nobody else may, once
two stand). `overview` tells before what one would do, and `outcomes` what each system said that it
did; `erasing` carries it out, `expiry` lets go what is past its retention class, by a clock that
may be wrong (`looks`), `keeping` says what holds keep, and `shredding` gathers what goes. The
record of a deed is in the log before the deed, and obliges to it
(`obligations`, derived from the log): after a kill, or in a vault restored from an old copy, the
next start does what the log says was done. What expired, or was erased, reads as that, with the
entry that says so; every proof verifies as ever. Whoever changes the catalogue has expiry look
through all of it anew (`retained`), and is told of records whose type is gone (`strays`).

*How long an erasure takes.* When its receipt is there, key and ciphertext are in no file of the
vault. A copy of the vault that was made before holds the wrapped key until it is destroyed: so
copies are kept apart from the tenant key, for at most the `backup_days` of records.toml, and the
receipt says when that is (11 CCR 7022(d) allows it for backups). When that time is over, the log
records it (`subject.key_backup_expired`), and has not looked at any copy. Whatever else was given
away is not ours to erase: the receipt names the recipients that the records know of. That nobody
kept another copy, no system can prove.

**Time-stamps.** RFC 3161 authorities (`authorities`) stamp published checkpoints on a schedule
(`stamper`), into a database of their own (`stamp_store`); `stamps` verifies them, purely, and says
what they prove of the time of an entry.

**Evidence.** Chosen records go into one file (`evidence`, `evidence_file` over `zipped`), which
`evidence_check` verifies, purely, for somebody who trusts nothing in it, and `evidence_gone` what
is said to be gone; `evidence_page` makes what people read. `collecting` gathers it from a log that
runs, and is imported by name.
"""

from tlog.audit.catalogue import Catalogue, TokenClass, default_catalogue, load_catalogue
from tlog.audit.documents import bytes_of
from tlog.audit.errors import AuditError, CatalogueError, EventRefused
from tlog.audit.event import Draft, Event, match_disclosures, open_event, sign_event
from tlog.audit.stamps import Authority, StampError, StampTime, verify_stamp

__all__ = [
    "AuditError",
    "Authority",
    "Catalogue",
    "CatalogueError",
    "Draft",
    "Event",
    "EventRefused",
    "StampError",
    "StampTime",
    "TokenClass",
    "bytes_of",
    "default_catalogue",
    "load_catalogue",
    "match_disclosures",
    "open_event",
    "sign_event",
    "verify_stamp",
]
