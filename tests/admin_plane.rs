//! The admin plane beside the data plane, in one process: which of its threads go first. How much
//! that is worth is measured by `benches/busy`.

use std::collections::BTreeMap;

use serde_json::json;

use crate::support::gateway::Site;
use crate::support::http::request;

/// How a thread is scheduled: its niceness, and the number of its policy (`sched(7)`: 0 for the
/// usual one, 5 for `SCHED_IDLE`).
type Scheduled = (i32, u32);

/// How every thread of the process is scheduled, by the thread's name.
fn scheduled(pid: u32) -> BTreeMap<String, Vec<Scheduled>> {
    let mut found: BTreeMap<String, Vec<Scheduled>> = BTreeMap::new();
    for task in std::fs::read_dir(format!("/proc/{pid}/task")).unwrap() {
        // One that ended since the directory was read is none.
        let Ok(stat) = std::fs::read_to_string(task.unwrap().path().join("stat")) else { continue };
        // proc_pid_stat(5): the name in parentheses, then field 3 and on.
        let (before, after) = stat.rsplit_once(')').unwrap();
        let name = before.split_once('(').unwrap().1;
        let fields: Vec<&str> = after.split_ascii_whitespace().collect();
        let how = (fields[19 - 3].parse().unwrap(), fields[41 - 3].parse().unwrap());
        found.entry(name.to_owned()).or_default().push(how);
    }
    found
}

#[test]
fn the_admin_planes_threads_let_the_workers_go_first() {
    let site = Site::new(None, "");
    let gateway = site.start();
    // Threads that may block exist once there was something to do: here, on both listeners.
    gateway.shop("demo");
    assert_eq!(request("GET", "/metrics").send(gateway.admin).status, 200);
    let line = json!({"type": "shop/1", "id": "imported", "url": "https://imported.example"});
    let import = request("POST", "/api/v1/import")
        .header("Content-Type", "application/x-ndjson")
        .body(line.to_string());
    assert_eq!(import.send_unix(&site.socket()).status, 200);

    let own = rustix::process::getpriority_process(None).unwrap();
    let threads = scheduled(gateway.pid());
    let first = ["worker-0", "worker-1", "control", "log", "latchkey"];
    let behind = [("admin", (own + 10).min(19), 0, 3), ("bulk", 19, 5, 2)];
    for name in first {
        let how = threads.get(name).unwrap_or_else(|| panic!("no {name} in {threads:?}"));
        assert!(how.iter().all(|how| *how == (own, 0)), "{name}: {threads:?}");
    }
    for (name, nice, policy, least) in behind {
        let how = threads.get(name).unwrap_or_else(|| panic!("no {name} in {threads:?}"));
        assert!(how.iter().all(|how| *how == (nice, policy)), "{name}: {threads:?}");
        assert!(how.len() >= least, "at least one of {name} may block: {threads:?}");
    }
    let known = |name: &&String| {
        first.contains(&name.as_str()) || behind.iter().any(|(known, ..)| known == name)
    };
    let others: Vec<&String> = threads.keys().filter(|name| !known(name)).collect();
    assert!(others.is_empty(), "whose turn is it for {others:?}?");
}
