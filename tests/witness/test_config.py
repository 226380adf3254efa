"""The directory of a witness: made whole or refused, opened by one process."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.witness.support import NAME, ORIGIN, WITNESS_VKEYS, SomeLog
from tlog.notes import Algorithm, NoteError, open_checkpoint
from tlog.store import StoreLocked
from tlog.witness import (
    Witness,
    WitnessConfig,
    WitnessError,
    add_log,
    add_peer,
    create_witness,
    hash_origin,
)

LOG = SomeLog()


async def test_a_new_witness_works(tmp_path: Path) -> None:
    vkeys = create_witness(tmp_path / "w", name=NAME, passphrase=b"secret")
    assert [(vkey.name, vkey.algorithm) for vkey in vkeys] == [
        (NAME, Algorithm.ED25519_COSIGNATURE),
        (NAME, Algorithm.MLDSA44),
    ]
    add_log(tmp_path / "w", [LOG.signers[0].vkey])
    for old in (0, 5):
        async with Witness.opened(tmp_path / "w", passphrase=b"secret") as witness:
            assert witness.vkeys == vkeys
            await witness.add_checkpoint(*LOG.request(old, 5))
            note = witness.checkpoint(hash_origin(ORIGIN))
            assert len(open_checkpoint(note, vkeys, origin=ORIGIN).signed_by) == 2
            with pytest.raises(StoreLocked):
                async with Witness.opened(tmp_path / "w", passphrase=b"secret"):
                    pass
    with pytest.raises(NoteError):
        async with Witness.opened(tmp_path / "w"):
            pass


def test_refused_directories_and_names(tmp_path: Path) -> None:
    (tmp_path / "used").mkdir()
    (tmp_path / "used" / "file").touch()
    with pytest.raises(WitnessError, match="not empty"):
        create_witness(tmp_path / "used", name=NAME)
    for name in ("", "a b", "a+b", "x" * 256, "a\nb"):
        with pytest.raises(WitnessError, match="the name") as caught:
            create_witness(tmp_path / "new", name=name)
        assert "\n" not in str(caught.value)
        assert not (tmp_path / "new").exists()


async def test_keys_in_the_wrong_place(tmp_path: Path) -> None:
    create_witness(tmp_path, name=NAME)
    keys = tmp_path / "keys"
    (keys / "mldsa44.key").write_bytes((keys / "ed25519.key").read_bytes())
    with pytest.raises(WitnessError, match="not the MLDSA44 key"):
        async with Witness.opened(tmp_path):
            pass


def test_witness_toml(tmp_path: Path) -> None:
    with pytest.raises(WitnessError, match="tlog witness init"):
        WitnessConfig.load(tmp_path)
    config = WitnessConfig(name='quo"te', rate=0.5, burst=3, max_body_size=20_000)
    config.save(tmp_path)
    assert WitnessConfig.load(tmp_path) == config
    with pytest.raises(FileExistsError):
        config.save(tmp_path)
    peer = '[[peers]]\nvkey = "%s"\nurl = "grpc://a:1"\n'
    for text in (
        "",
        'name = "w"\n' + peer % "nonsense",
        'name = "w"\n' + peer % LOG.signers[0].vkey,
        'name = "w"\n' + 2 * (peer % WITNESS_VKEYS[0]),
        'name = "w"\n' + peer % WITNESS_VKEYS[0] + peer % WITNESS_VKEYS[1],
        f'name = "{NAME}"\n' + peer % WITNESS_VKEYS[1],
        'name = "w"\n' + (peer % WITNESS_VKEYS[0]).replace("a:1", "a b"),
        'name = "w"\ngossip_interval = 0',
        "name = 1",
        'name = "a b"',
        'name = "w"\nrate = 0',
        'name = "w"\nburst = 0',
        'name = "w"\nmax_body_size = 1048576',
        'name = "w"\nnonsense = 1',
        "name =",
        "# " + "x" * 70_000,
    ):
        (tmp_path / "witness.toml").write_text(text)
        with pytest.raises(WitnessError, match=r"witness\.toml"):
            WitnessConfig.load(tmp_path)
    (tmp_path / "witness.toml").write_bytes(b'name = "\xff"')
    with pytest.raises(WitnessError):
        WitnessConfig.load(tmp_path)


def test_peers_are_added_below_what_the_operator_wrote(tmp_path: Path) -> None:
    create_witness(tmp_path, name="w")
    path = tmp_path / "witness.toml"
    path.write_text(path.read_text() + "# a remark, and no newline")
    added = add_peer(tmp_path, WITNESS_VKEYS[1], "grpc://127.0.0.1:1")
    assert added.name == NAME
    config = WitnessConfig.load(tmp_path)
    assert config.peers == (added,)
    assert "# a remark, and no newline\n" in path.read_text()
    before = path.read_text()
    for vkey, url, why in (
        (WITNESS_VKEYS[0], "grpc://127.0.0.1:2", "named twice"),
        (LOG.signers[0].vkey, "grpc://127.0.0.1:2", "not the key of a witness"),
        (WITNESS_VKEYS[0], "", "1 character"),
    ):
        with pytest.raises(WitnessError, match=why):
            add_peer(tmp_path, vkey, url)
        assert path.read_text() == before
    (tmp_path / "copy").mkdir()
    config.save(tmp_path / "copy")
    assert WitnessConfig.load(tmp_path / "copy") == config
