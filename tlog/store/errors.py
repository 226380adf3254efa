"""The errors of the room. Every message tells the path and what to do."""


class StoreError(Exception):
    """The store refused or failed. The subclasses name the failures that a caller tells apart."""


class StoreLocked(StoreError):
    """Another process, or another handle of this one, has the store open for writing."""


class StoreCorrupt(StoreError):
    """Stored bytes are damaged or gone. Never retry: run fsck, restore a copy."""


class StoreFull(StoreError):
    """The disk is full. Nothing acknowledged is lost; make room, then `reopen`."""


class StoreMissing(StoreError):
    """There is nothing at this path, or no such tile or bundle."""


class SchemaError(StoreError):
    """The directory holds a database that this version cannot read, or none of ours."""
