"""The tenant key: private files only, and commands that are bounded in all they can do."""

from __future__ import annotations

import errno
import os
import sys
import time
from pathlib import Path

import pytest

from tlog.audit import AuditError
from tlog.audit.tenant_key import create_tenant_key, load_tenant_key

PYTHON = sys.executable


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    create_tenant_key(tmp_path / "tenant.key")
    return tmp_path / "tenant.key"


def test_a_key_file_is_private_and_never_overwritten(key_file: Path) -> None:
    key = load_tenant_key(key_file)
    assert len(key) == 32
    assert key_file.stat().st_mode & 0o777 == 0o600
    with pytest.raises(AuditError, match="File exists"):
        create_tenant_key(key_file)
    assert load_tenant_key(key_file) == key
    key_file.chmod(0o640)
    with pytest.raises(AuditError, match="chmod 600"):
        load_tenant_key(key_file)


def test_what_is_no_key_file_is_refused(tmp_path: Path, key_file: Path) -> None:
    (tmp_path / "link").symlink_to(key_file)
    os.mkfifo(tmp_path / "fifo", 0o600)
    (tmp_path / "short").write_bytes(b"x" * 31)
    (tmp_path / "long").write_bytes(b"x" * 100_000)
    for name in ("short", "long"):
        (tmp_path / name).chmod(0o600)
    for name, said in [
        ("link", "symbolic"),
        ("fifo", "regular file"),
        ("none", "is missing: put it back from a copy, .* tlog records recover"),
        ("short", "31 bytes, a key has 32"),
        ("long", "longer than"),
    ]:
        with pytest.raises(AuditError, match=said):
            load_tenant_key(tmp_path / name)


def test_half_a_key_file_is_not_left_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(AuditError, match=r"tenant\.key not written: No space left"):
            create_tenant_key(tmp_path / "tenant.key")
    assert list(tmp_path.iterdir()) == []
    create_tenant_key(tmp_path / "tenant.key", b"k" * 32)
    assert load_tenant_key(tmp_path / "tenant.key") == b"k" * 32


UNWRAP = "import sys; d = sys.stdin.buffer.read(); sys.stdout.buffer.write(bytes(b ^ 1 for b in d))"


def test_a_command_unwraps_what_is_in_the_file(key_file: Path) -> None:
    wrapped = key_file.read_bytes()
    key = load_tenant_key(key_file, command=[PYTHON, "-c", UNWRAP])
    assert key == bytes(byte ^ 1 for byte in wrapped)


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (["/nonexistent/kms"], "does not run"),
        ([PYTHON, "-c", "import sys; sys.exit(3)"], "failed with status 3"),
        ([PYTHON, "-c", "print('short', end='')"], "has 5 bytes"),
        ([PYTHON, "-c", "while True: print('x' * 9000)"], "more than the 32 bytes"),
        ([PYTHON, "-c", "import os; os.close(0); print('x' * 32)"], "more than the 32"),
        (["/bin/sh", "-c", "printf 12345678901234567890123456789012; exit 4"], "status 4"),
    ],
)
def test_a_command_that_gives_no_key_is_refused(
    key_file: Path, command: list[str], said: str
) -> None:
    with pytest.raises(AuditError, match=said):
        load_tenant_key(key_file, command=command)


@pytest.mark.parametrize(
    ("script", "told"),
    [
        ("echo one >&2; echo 'no such key: prod' >&2; echo >&2; exit 3", ": no such key: prod"),
        ("printf 'no newline' >&2; exit 3", ": no newline"),
        ("printf 'red \\033[31m \\377\\rreally\\r\\n' >&2; exit 3", ": red �[31m ��really"),
        ("head -c 300000 /dev/zero | tr '\\0' x >&2; echo >&2; exit 3", ": " + "x" * 300),
        ("head -c 300000 /dev/zero >&2; echo; echo end >&2; exit 3", ""),
        ("head -c 300000 /dev/zero >&2; echo >&2; echo end >&2; exit 3", ": end"),
        ("exec >&-; sleep 0.2; echo late >&2; exit 3", ": late"),
        ("exec 2>&-; exit 3", ""),
        # Whoever gives a byte of a key may say all of it.
        ("printf 12345678; echo 'the key is 12345678' >&2; exit 3", ""),
    ],
)
def test_what_a_command_that_fails_says_last_is_told(
    key_file: Path, script: str, told: str
) -> None:
    with pytest.raises(AuditError) as caught:
        load_tenant_key(key_file, command=["/bin/sh", "-c", script])
    assert str(caught.value) == f"tenant key: /bin/sh failed with status 3{told}"


def test_a_command_that_complains_and_gives_the_key(key_file: Path) -> None:
    key = b"12345678901234567890123456789012"
    script = f"head -c 300000 /dev/zero >&2; printf {key.decode()}; echo deprecated >&2"
    assert load_tenant_key(key_file, command=["/bin/sh", "-c", script]) == key


@pytest.mark.parametrize(
    "script",
    [
        "sleep 600",
        "while :; do echo and so on >&2; done",
        # It says what it should, and does not end; or a child of it keeps the pipe open.
        "printf 12345678901234567890123456789012; exec sleep 600",
        "sleep 600 & printf 12345678901234567890123456789012",
    ],
)
def test_a_command_has_its_time_and_is_ended_with_all_it_started(
    key_file: Path, script: str, tmp_path: Path
) -> None:
    pid = tmp_path / "pid"
    started = time.monotonic()
    with pytest.raises(AuditError, match=r"gave none within 0\.5 s"):
        load_tenant_key(
            key_file, command=["/bin/sh", "-c", f"echo $$ > {pid}; {script}"], timeout=0.5
        )
    assert time.monotonic() - started < 10
    with pytest.raises(ProcessLookupError):
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            os.killpg(int(pid.read_text()), 0)
            time.sleep(0.01)
