//! The admin plane beside the data plane, in one process: which of its threads go first. How much
//! that is worth is measured by `benches/busy`.

use std::collections::BTreeMap;

use serde_json::json;

use crate::support::gateway::Site;
use crate::support::http::request;

/// The niceness of every thread of the process, by the thread's name.
fn niceness(pid: u32) -> BTreeMap<String, Vec<i32>> {
    let mut found: BTreeMap<String, Vec<i32>> = BTreeMap::new();
    for task in std::fs::read_dir(format!("/proc/{pid}/task")).unwrap() {
        // One that ended since the directory was read is none.
        let Ok(stat) = std::fs::read_to_string(task.unwrap().path().join("stat")) else { continue };
        // proc_pid_stat(5): the name in parentheses, then field 3 and on; 19 is the niceness.
        let (before, after) = stat.rsplit_once(')').unwrap();
        let name = before.split_once('(').unwrap().1;
        let nice = after.split_ascii_whitespace().nth(19 - 3).unwrap();
        found.entry(name.to_owned()).or_default().push(nice.parse().unwrap());
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
    let threads = niceness(gateway.pid());
    for worker in ["worker-0", "worker-1", "control", "log", "latchkey"] {
        let nice = threads.get(worker).unwrap_or_else(|| panic!("no {worker} in {threads:?}"));
        assert!(nice.iter().all(|nice| *nice == own), "{worker}: {threads:?}");
    }
    let admin = &threads["admin"];
    assert!(admin.len() > 2, "two that answer, and at least one that may block: {threads:?}");
    let nicer = (own + 10).min(19);
    assert!(admin.iter().all(|nice| *nice == nicer), "{threads:?}");
    let known = ["worker-0", "worker-1", "control", "log", "latchkey", "admin"];
    let others: Vec<&String> = threads.keys().filter(|name| !known.contains(&&***name)).collect();
    assert!(others.is_empty(), "whose turn is it for {others:?}?");
}
