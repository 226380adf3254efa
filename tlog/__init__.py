"""tlog: an audit log that proves itself."""
