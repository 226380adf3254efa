"""The vault: what is sealed opens, only as it was signed; what is destroyed is in no file."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.audit.producer import access, opened, received, signed
from tests.audit.tenant import TENANT_KEY
from tlog.audit import Event
from tlog.audit.shredding import Shredding
from tlog.audit.tokens import canonical
from tlog.audit.vault import Erasure, Part, Sealing, Vault, VaultDamaged, part_key, split_part
from tlog.store import StoreError, StoreLocked, StoreMissing

ERASURE = Erasure(7, "R-1")


@pytest.fixture
def vault(tmp_path: Path) -> Iterator[Vault]:
    vault = Vault.create(tmp_path / "vault", TENANT_KEY)
    yield vault
    vault.close()


def put(vault: Vault, event: Event) -> bytes:
    """Seal an event, as if its leaf hash were its content."""
    sealing = Sealing(vault, [])
    keys = [sealing.subject(canonical(each)) for each in event.subject_ids()]
    sealing.seal(event, event.content, keys)
    vault.store.write(sealing.puts)
    vault.store.sync()
    sealing.done()
    return event.content


def said(vault: Vault, event: Event) -> list[Part]:
    return vault.open_parts(event.claims, event.event_id, event.content)


@pytest.mark.parametrize("number", [0, 1])
def test_a_part_that_somebody_took_is_missed(vault: Vault, number: int) -> None:
    event = opened(signed(access("alice@example.com")))
    put(vault, event)
    key = part_key(event.event_id, event.content, number)
    assert vault.store.get("parts", key) is not None
    vault.store.write([("parts", key, None)])
    assert [part.missing for part in said(vault, event)] == [number == 0, number == 1]


def test_decoys_alone_are_a_part_too(vault: Vault) -> None:
    event = opened(signed(replace(access(personal={}), decoys=4)))
    put(vault, event)
    assert event.shared == []
    assert said(vault, event)[0] == Part([])
    vault.store.write([("parts", part_key(event.event_id, event.content, 0), None)])
    assert said(vault, event)[0] == Part(missing=True)


def test_what_is_public_alone_has_no_part(vault: Vault) -> None:
    event = opened(signed(access(personal={})))
    put(vault, event)
    assert "_sd" not in event.claims
    assert said(vault, event)[0] == Part()


def test_what_is_sealed_opens_after_a_restart(vault: Vault) -> None:
    events = [
        opened(signed(received())),
        opened(signed(access("alice@example.com", "bob@example.com"))),
        opened(signed(access(personal={}))),
        opened(signed(access())),
    ]
    for event in events:
        put(vault, event)
    vault.close()
    again = Vault.open(vault.store.path, TENANT_KEY)
    for event in events:
        assert [list(part.disclosures) for part in said(again, event)] == [
            event.shared,
            *event.subjects,
        ]
    again.close()


def destroying(vault: Vault, identifier: str, erasure: Erasure, *, told: bool = True) -> Shredding:
    """What goes with the key of somebody, who is told by the identifier or has to be found."""
    key = vault.find_subject(identifier)
    shredding = Shredding(vault)
    if key is not None:
        shredding.destroy({key.key_id: erasure}, identifier=identifier if told else None)
    return shredding


def destroy(vault: Vault, identifier: str, erasure: Erasure, *, told: bool = True) -> bool:
    shredding = destroying(vault, identifier, erasure, told=told)
    if shredding.puts:
        vault.store.shred(shredding.puts, shredding.ranges)
    return bool(shredding.puts)


def every_byte(vault: Vault) -> bytes:
    files = [file for file in vault.store.path.rglob("*") if file.is_file()]
    return b"".join(file.read_bytes() for file in files)


@pytest.mark.parametrize(("early", "told"), [(False, True), (True, True), (True, False)])
def test_a_destroyed_key_and_what_it_sealed_are_in_no_file(
    vault: Vault, early: bool, told: bool
) -> None:
    alice = [opened(signed(access("Alice@example.com"))) for _ in range(5)]
    both = opened(signed(access("alice@example.com", "bob@example.com")))
    others = [opened(signed(access(f"{i}@example.com"))) for i in range(50)]
    put(vault, alice[0])
    for family in vault.store._families.values() if early else ():
        family.flush(True)  # a table of her own, whose keys the manifest names
    for event in [*alice[1:3], *others[:25], both, *others[25:], *alice[3:]]:
        put(vault, event)
    vault.store._families["parts"].flush(True)  # some of it in tables, some in the WAL
    late = opened(signed(access("alice@example.com")))
    put(vault, late)
    key = vault.find_subject("alice@example.com")
    assert key is not None
    wrapped = vault.store.get("keys", key.key_id)
    sealed = [
        split_part(row)[1]
        for event in [*alice, both, late]
        for number in (0, 1)
        if (row := vault.store.get("parts", part_key(event.event_id, event.content, number)))
    ]
    assert wrapped is not None
    secrets = [key.secret, wrapped[13:], vault.lookup("alice@example.com"), *sealed]
    assert len(sealed) == 14
    before = every_byte(vault)
    assert [secret in before for secret in secrets] == [False] + [True] * 16

    assert len(list(vault.parts_of(key.key_id))) == 14
    assert destroy(vault, "alice@example.com", ERASURE, told=told)
    after = every_byte(vault)
    assert not any(secret in after for secret in secrets)
    assert vault.lookup("alice@example.com").hex()[:8].encode() not in after
    assert not destroy(vault, "alice@example.com", ERASURE)
    assert vault.find_subject("alice@example.com") is None

    for event in [*alice, late]:
        assert said(vault, event) == [Part(erasure=ERASURE)] * 2
    # What was said of both is gone with the first; what was said of Bob alone is not.
    assert said(vault, both) == [
        Part(erasure=ERASURE), Part(erasure=ERASURE), Part(both.subjects[1]),
    ]  # fmt: skip
    for event in others:
        assert [list(part.disclosures) for part in said(vault, event)] == [
            event.shared,
            *event.subjects,
        ]
    # Bob's erasure finds a part that is gone already.
    assert destroy(vault, "bob@example.com", Erasure(9, "R-2"))
    assert said(vault, both)[2] == Part(erasure=Erasure(9, "R-2"))
    # Somebody who comes back has another key.
    fresh = opened(signed(access("alice@example.com")))
    put(vault, fresh)
    assert said(vault, fresh)[1] == Part(fresh.subjects[0])
    again = vault.find_subject("alice@example.com")
    assert again is not None
    assert again.key_id != key.key_id


@pytest.mark.parametrize("compacted", [False, True])
def test_a_destruction_cut_short_is_finished_by_the_next_start(
    vault: Vault, compacted: bool
) -> None:
    event = opened(signed(access("alice@example.com")))
    put(vault, event)
    for family in vault.store._families.values():
        family.flush(True)
    key = vault.find_subject("alice@example.com")
    assert key is not None
    row = vault.store.get("keys", key.key_id)
    assert row is not None

    shredding = destroying(vault, "alice@example.com", ERASURE)
    vault.store.begin_shred(shredding.puts, shredding.ranges)
    begun = vault.store.shredding
    assert begun is not None
    if compacted:
        vault.store.compact_shredded(begun)
    vault.close()
    assert (row in every_byte(vault)) is not compacted
    again = Vault.open(vault.store.path, TENANT_KEY)
    assert row not in every_byte(again)
    assert said(again, event) == [Part(erasure=ERASURE)] * 2
    assert again.store.get("state", b"store/shredding") is None
    again.close()


def test_a_key_that_the_disk_lost_is_not_remembered(vault: Vault, tmp_path: Path) -> None:
    """A search may find it before it is synced; what is sealed with it later opens never again."""
    before = tmp_path / "before"
    shutil.copytree(vault.store.path / "db", before)
    sealing = Sealing(vault, [])
    sealing.subject("alice@example.com")
    sealing.epoch("2026Q1")
    vault.store.write(sealing.puts)
    assert vault.find_subject("alice@example.com") is not None
    assert vault.find_epoch("2026Q1") is not None
    vault.store.close()  # as the power goes
    shutil.rmtree(vault.store.path / "db")
    before.rename(vault.store.path / "db")
    vault.recover()
    assert vault.find_subject("alice@example.com") is None
    assert vault.find_epoch("2026Q1") is None


def test_keys_are_random_and_no_part_shares_one(vault: Vault) -> None:
    event = opened(signed(access("alice@example.com")))
    first, second = Sealing(vault, []), Sealing(vault, [])
    assert first.subject("a") == first.subject("a")
    assert first.subject("a") != second.subject("a")  # not known before it is written
    assert first.epoch("2026Q1") != first.epoch("2026Q2")
    put(vault, event)
    rows = [vault.store.get("parts", part_key(event.event_id, event.content, i)) for i in (0, 1)]
    # A row moved elsewhere does not open: its place is part of its key.
    vault.store.write([("parts", part_key(event.event_id, event.content, 1), rows[0])])
    with pytest.raises(VaultDamaged, match="not what was signed"):
        said(vault, event)


def test_every_damaged_byte_of_a_part_is_found(vault: Vault) -> None:
    event = opened(signed(access("alice@example.com", personal={})))
    put(vault, event)
    key = part_key(event.event_id, event.content, 1)
    row = vault.store.get("parts", key)
    assert row is not None
    for at in range(17, len(row)):  # the nonce, and all that is sealed
        vault.store.write([("parts", key, row[:at] + bytes([row[at] ^ 1]) + row[at + 1 :])])
        with pytest.raises(VaultDamaged, match="part 1 of event"):
            said(vault, event)
    for cut in (row[:-1], row[:30], row[:17]):
        vault.store.write([("parts", key, cut)])
        with pytest.raises(VaultDamaged):
            said(vault, event)


def test_what_opens_must_be_what_was_signed(vault: Vault) -> None:
    """AES-GCM commits to no key: whoever holds it can seal something else. The digests do."""
    event = opened(signed(access("alice@example.com", personal={})))
    put(vault, event)
    lie = opened(signed(access("alice@example.com", personal={})))
    sealing = Sealing(vault, [])
    keys = [sealing.subject("alice@example.com")]
    sealing._seal(part_key(event.event_id, event.content, 1), keys, lie.subjects[0])
    vault.store.write(sealing.puts)
    with pytest.raises(VaultDamaged, match="not what was signed"):
        said(vault, event)


def test_another_tenant_key_opens_nothing(vault: Vault, tmp_path: Path) -> None:
    vault.close()
    with pytest.raises(VaultDamaged, match="the tenant key is another one"):
        Vault.open(tmp_path / "vault", b"x" * 32)
    Vault.open(tmp_path / "vault", TENANT_KEY).close()


def test_the_store_refuses_what_it_must(vault: Vault, tmp_path: Path) -> None:
    with pytest.raises(StoreLocked):
        Vault.open(tmp_path / "vault", TENANT_KEY)
    with pytest.raises(StoreError, match="exists"):
        Vault.create(tmp_path / "vault", TENANT_KEY)
    with pytest.raises(StoreMissing, match="no vault here"):
        Vault.open(tmp_path / "other", TENANT_KEY)
    vault.close()
    with pytest.raises(StoreError, match="closed"):
        vault.store.get("keys", b"x")
    with pytest.raises(StoreError, match="refuses writes"):
        vault.store.write([])


def test_what_is_begun_while_files_are_rewritten_is_not_forgotten(vault: Vault) -> None:
    events = {who: opened(signed(access(who))) for who in ("alice", "bob")}
    rows = []
    for who, event in events.items():
        put(vault, event)
        key = vault.find_subject(who)
        assert key is not None
        rows.append(vault.store.get("keys", key.key_id) or b"")
    for family in vault.store._families.values():
        family.flush(True)
    first = destroying(vault, "alice", ERASURE)
    vault.store.begin_shred(first.puts, first.ranges)
    begun = vault.store.shredding
    assert begun is not None
    vault.store.compact_shredded(begun)
    second = destroying(vault, "bob", ERASURE)
    vault.store.begin_shred(second.puts, second.ranges)
    vault.store.end_shred(begun)
    assert vault.store.shredding not in {None, begun}
    vault.store.finish_shred()
    assert vault.store.shredding is None
    after = every_byte(vault)
    assert not any(row[13:] in after for row in rows)
