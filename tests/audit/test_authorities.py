"""The authorities that `timestamps.toml` names."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from tests.audit.authority import Station, make_leaf, settings_of
from tests.audit.test_stamper import stamped
from tlog.audit import StampError
from tlog.audit.authorities import load_settings
from tlog.log import LogConfig, create_log


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """A log that is to be stamped by two."""
    made = tmp_path / "log"
    create_log(made, LogConfig(origin="example.com/log", name="log", checkpoint_interval=0))
    stations = [Station(tmp_path / name, name=name) for name in ("one", "two")]
    (made / "timestamps.toml").write_text(settings_of(*stations, interval=0.05))
    return made


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (("interval = 0.05", "interval = 0"), "interval: Input should be greater"),
        (("interval", "intervall"), "intervall: Extra inputs"),
        (('name = "two"', 'name = "one"'), "two authorities are called 'one'"),
        (('name = "two"', 'name = "t w o"'), "'t w o' is no name"),
        (("two/root.pem", "two/none.pem"), "none.pem cannot be read: No such file"),
        (("two/tsa.pem", "two/root.pem"), "not one for time stamping alone"),
        (("two/root.pem", "two/tsa.pem"), "need a root"),
        (("two/root.pem", "two/tsa.key"), "tsa.key holds no certificates in PEM"),
        (("two/root.pem", "log/db"), "cannot be read"),
        (('url = "', 'url = "grpc:'), "not an address|cannot be"),
        (("[[authority]]", "[[authority"), "timestamps.toml: "),
        (("interval", "[" * 5000), "timestamps.toml: "),
        (("interval", "x = '\udcff'\ninterval"), "timestamps.toml: .*utf-8"),
        (("interval", "#" * (1 << 20) + "\ninterval"), "longer than 1048576 bytes"),
    ],
)
async def test_settings_that_are_not_understood(
    directory: Path, change: tuple[str, str], says: str
) -> None:
    path = directory / "timestamps.toml"
    before = path.read_text()
    assert change[0] in before
    path.write_bytes(before.replace(*change).encode("utf-8", "surrogateescape"))
    with pytest.raises(Exception, match=says) as caught:
        async with stamped(directory):
            raise AssertionError("opened")
    assert isinstance(caught.value, StampError) or "address" in says


def test_one_authority_under_two_names_is_one(tmp_path: Path) -> None:
    one, two, three = (Station(tmp_path / name, name=name) for name in ("one", "two", "three"))
    sister = Station(tmp_path / "sister", name="sister", root=one.root)

    def refused(*stations: Station) -> str:
        (tmp_path / "timestamps.toml").write_text(settings_of(*stations, interval=1))
        with pytest.raises(StampError) as caught:
            load_settings(tmp_path)
        assert str(caught.value).startswith(f"{tmp_path}/timestamps.toml: ")
        return str(caught.value)

    assert "one alone may lie" in refused(one)
    assert "below different roots" in refused(one, sister)
    two.url = one.url
    assert "one and two are one authority: they have one url" in refused(one, three, two)
    two.url += "/two"
    # A new certificate, from another root, for the same key.
    (two.directory / "tsa.pem").write_bytes(make_leaf(two.root, one.key).public_bytes(Encoding.PEM))
    assert "one and two are one authority: they sign with one key" in refused(one, two, three)
    (tmp_path / "timestamps.toml").write_text(settings_of(one, sister, three, interval=1))
    read = load_settings(tmp_path)
    assert read is not None
    assert len(read.authorities) == 3


def test_the_settings_that_the_readme_shows(tmp_path: Path) -> None:
    readme = (Path(__file__).resolve().parents[2] / "README.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```toml\n(.*?)^```$", readme, re.M | re.S)
    (shown,) = (block for block in blocks if "[[authority]]" in block)
    expected = []
    for name in ("example", "other"):
        station = Station(tmp_path / name)
        (tmp_path / "timestamps").mkdir(exist_ok=True)
        for made, called in (("tsa.pem", "tsa"), ("root.pem", "ca")):
            (station.directory / made).rename(tmp_path / f"timestamps/{name}-{called}.pem")
        url = f"https://tsa.{name}/tsr"
        expected.append(replace(station.authority, name=name, url=url))
    (tmp_path / "timestamps.toml").write_text(shown)
    read = load_settings(tmp_path)
    assert read is not None
    assert read.interval == 3600
    assert read.authorities == tuple(expected)
