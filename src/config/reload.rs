//! What a running process can take over from a new configuration, and what it cannot.

use super::Config;

/// The keys that differ between `old` and `new` and that only a restart can apply: sockets,
/// threads, files and memory that are set up once. Routes, limits, issuers, upstreams, origins,
/// widgets and the log's level are applied by a reload.
#[must_use]
pub fn restart_needed(old: &Config, new: &Config) -> Vec<&'static str> {
    let (os, ns) = (&old.server, &new.server);
    let changed = [
        ("server.listen", os.listen != ns.listen),
        ("server.workers", os.workers != ns.workers),
        ("server.connections_max", os.connections_max != ns.connections_max),
        ("server.header_bytes_max", os.header_bytes_max != ns.header_bytes_max),
        ("server.header_count_max", os.header_count_max != ns.header_count_max),
        ("server.body_bytes_max", os.body_bytes_max != ns.body_bytes_max),
        ("server.head_timeout", os.head_timeout != ns.head_timeout),
        ("server.idle_timeout", os.idle_timeout != ns.idle_timeout),
        ("server.body_timeout", os.body_timeout != ns.body_timeout),
        ("server.drain_timeout", os.drain_timeout != ns.drain_timeout),
        ("admin.listen", old.admin.listen != new.admin.listen),
        ("admin.socket", old.admin.socket != new.admin.socket),
        ("store.path", old.store.path != new.store.path),
        ("store.master_key_file", old.store.master_key_file != new.store.master_key_file),
        ("limiter.cells", old.limiter_cells != new.limiter_cells),
        ("jwt_cache.entries", old.jwt_cache_entries != new.jwt_cache_entries),
        ("log.format", old.log.format != new.log.format),
    ];
    let changed = changed.into_iter().filter(|(_, differs)| *differs);
    changed.map(|(key, _)| key).collect()
}
