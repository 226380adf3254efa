"""A mirror (c2sp.org/tlog-mirror): verified copies of logs, cosigned once they are on its disk.

`Mirror` takes pending checkpoints and uploads of entries, package by package; `uploads` reads and
writes their bodies, `tickets` remembers checkpoints for clients, `Copy` is one log's copy: a
log's directory without its keys. `Followers` fetches what logs publish, through the port
`tlog.merkle.TileSource`. `restore` makes a lost log's directory from its copy. Refusals are those
of `tlog.witness`, with the specification's status codes. Nothing here knows gRPC or HTTP.
"""

from tlog.mirror.config import MirrorConfig, copy_directory, create_mirror
from tlog.mirror.copy import Copy
from tlog.mirror.errors import MirrorError, TooSlow, Unsupported, UploadConflict
from tlog.mirror.follow import Connect, Follower, Followers, following
from tlog.mirror.mirror import Accepted, Mirror, Mirrored
from tlog.mirror.restore import restore
from tlog.mirror.tickets import Tickets
from tlog.mirror.uploads import (
    INFO_TYPE,
    MirrorInfo,
    Package,
    PackageRange,
    Upload,
    UploadParser,
    canonical_sequence,
    encode_upload,
)

__all__ = [
    "INFO_TYPE",
    "Accepted",
    "Connect",
    "Copy",
    "Follower",
    "Followers",
    "Mirror",
    "MirrorConfig",
    "MirrorError",
    "MirrorInfo",
    "Mirrored",
    "Package",
    "PackageRange",
    "Tickets",
    "TooSlow",
    "Unsupported",
    "Upload",
    "UploadConflict",
    "UploadParser",
    "canonical_sequence",
    "copy_directory",
    "create_mirror",
    "encode_upload",
    "following",
    "restore",
]
