//! What a running process can take over from a new configuration, and what it cannot.
//!
//! It compares; putting a configuration in force is `cli`'s and `admin`'s.

use super::Config;

/// Whether something differs between two configurations.
type Differs = fn(&Config, &Config) -> bool;

/// What only a restart can apply: sockets, threads, files and memory that are set up once.
/// Certificates can be replaced, but a plain listener does not become a TLS listener, nor the
/// other way about: callers would meet both for a while.
const RESTART: [(&str, Differs); 16] = [
    ("server.listen", |old, new| old.server.listen != new.server.listen),
    ("server.workers", |old, new| old.server.workers != new.server.workers),
    ("server.tls", |old, new| old.server.tls.is_some() != new.server.tls.is_some()),
    ("admin.listen", |old, new| old.admin.listen != new.admin.listen),
    ("admin.socket", |old, new| old.admin.socket != new.admin.socket),
    ("admin.dashboard", |old, new| old.admin.dashboard != new.admin.dashboard),
    ("admin.tls", |old, new| old.admin.tls.is_some() != new.admin.tls.is_some()),
    ("admin.passwords.concurrent_max", |old, new| {
        old.admin.passwords.concurrent_max != new.admin.passwords.concurrent_max
    }),
    ("admin.passwords.waiting_max", |old, new| {
        old.admin.passwords.waiting_max != new.admin.passwords.waiting_max
    }),
    ("store.path", |old, new| old.store.path != new.store.path),
    ("store.master_key_file", |old, new| old.store.master_key_file != new.store.master_key_file),
    ("limiter.cells", |old, new| old.limiter_cells != new.limiter_cells),
    ("jwt_cache.entries", |old, new| old.jwt_cache_entries != new.jwt_cache_entries),
    ("log.format", |old, new| old.log.format != new.log.format),
    ("log.queue_lines_max", |old, new| old.log.queue_lines_max != new.log.queue_lines_max),
    ("tracing.otlp.queue_max", |old, new| old.tracing.queue_max != new.tracing.queue_max),
];

/// The keys that differ between `old` and `new` and that only a restart can apply. A reload
/// applies the rest: routes, limits, issuers, upstreams, origins, widgets, the log's level,
/// traces and their collector, certificates, sessions and passwords of operators, what is kept and
/// for how long, backups, and for new connections the bounds and timeouts of the data plane.
#[must_use]
pub fn restart_needed(old: &Config, new: &Config) -> Vec<&'static str> {
    let changed = RESTART.iter().filter(|(_, differs)| differs(old, new));
    changed.map(|(key, _)| *key).collect()
}

/// Whether `key` is one that only a restart can apply; of a table, whether it is there at all.
pub(super) fn needs_restart(key: &str) -> bool {
    RESTART.iter().any(|(name, _)| *name == key)
}
