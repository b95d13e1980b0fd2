//! What a running process can take over from a new configuration, and what it cannot.
//!
//! It compares; putting a configuration in force is `cli`'s and `admin`'s.

use super::Config;

/// The keys that differ between `old` and `new` and that only a restart can apply: sockets,
/// threads, files and memory that are set up once. A reload applies the rest: routes, limits,
/// issuers, upstreams, origins, widgets, the log's level, traces and their collector, certificates,
/// sessions and passwords of operators, what is kept and for how long, backups, and for new
/// connections the bounds and timeouts of the data plane. Certificates can be replaced, but a plain
/// listener does not become a TLS listener, nor the other way about: callers would meet both for a
/// while.
#[must_use]
pub fn restart_needed(old: &Config, new: &Config) -> Vec<&'static str> {
    let changed = [
        ("server.listen", old.server.listen != new.server.listen),
        ("server.workers", old.server.workers != new.server.workers),
        ("server.tls", old.server.tls.is_some() != new.server.tls.is_some()),
        ("admin.listen", old.admin.listen != new.admin.listen),
        ("admin.socket", old.admin.socket != new.admin.socket),
        ("admin.dashboard", old.admin.dashboard != new.admin.dashboard),
        ("admin.tls", old.admin.tls.is_some() != new.admin.tls.is_some()),
        (
            "admin.passwords.concurrent_max",
            old.admin.passwords.concurrent_max != new.admin.passwords.concurrent_max,
        ),
        (
            "admin.passwords.waiting_max",
            old.admin.passwords.waiting_max != new.admin.passwords.waiting_max,
        ),
        ("store.path", old.store.path != new.store.path),
        ("store.master_key_file", old.store.master_key_file != new.store.master_key_file),
        ("limiter.cells", old.limiter_cells != new.limiter_cells),
        ("jwt_cache.entries", old.jwt_cache_entries != new.jwt_cache_entries),
        ("log.format", old.log.format != new.log.format),
        ("log.queue_lines_max", old.log.queue_lines_max != new.log.queue_lines_max),
        ("tracing.otlp.queue_max", old.tracing.queue_max != new.tracing.queue_max),
    ];
    let changed = changed.into_iter().filter(|(_, differs)| *differs);
    changed.map(|(key, _)| key).collect()
}
