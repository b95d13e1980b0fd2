//! `latchkey demo`: its check passes, and its curl lines, pasted as they stand into a shell, give
//! the statuses they promise, also twice.

use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};

use crate::support::gateway::BINARY;
use crate::support::secrets;

#[test]
fn the_check_passes() {
    let output = Command::new(BINARY)
        .args(["demo", "--check", "--listen", "127.0.0.1:0"])
        .env_clear()
        .output()
        .expect("the binary runs");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}\n{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn the_printed_curl_lines_give_the_printed_statuses() {
    let mut demo = Command::new(BINARY)
        .args(["demo", "--listen", "127.0.0.1:0"])
        .env_clear()
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("the binary starts");
    let stdout = demo.stdout.take().expect("a pipe");
    let mut calls: Vec<(String, String)> = Vec::new();
    let mut expectation: Option<String> = None;
    for line in BufReader::new(stdout).lines() {
        let line = line.expect("UTF-8");
        if line.starts_with("curl ") {
            let promised = expectation.take().expect("a promise above each call");
            calls.push((promised, line));
        } else if line.contains("Ctrl-C") {
            break;
        } else {
            expectation = line.strip_prefix("# ").map(str::to_owned);
        }
    }
    let mut codes = std::collections::BTreeSet::new();
    for round in 0..2 {
        for (promised, call) in &calls {
            let output = Command::new("bash").args(["-c", call]).output().expect("bash runs");
            let answer = String::from_utf8_lossy(&output.stdout);
            let mut words = promised.split([' ', ':']);
            let (status, code) = (words.next().unwrap(), words.next().unwrap());
            let head = format!("HTTP/1.1 {status} ");
            assert!(answer.starts_with(&head), "round {round}: {promised}\n{call}\n{answer}");
            if code != "ok" {
                let member = format!("\"code\":\"{code}\"");
                assert!(answer.replace("\": \"", "\":\"").contains(&member), "{call}\n{answer}");
            }
            codes.insert(code.to_owned());
        }
    }
    let _ = demo.kill();
    let _ = demo.wait();
    assert!(calls.len() >= 15, "{calls:?}");
    for code in [
        "ok",
        "bad_request",
        "not_found",
        "missing_credential",
        "invalid_credential",
        "expired_credential",
        "cross_tenant",
        "origin_mismatch",
        "insufficient_scope",
        "rate_limited",
    ] {
        assert!(codes.contains(code), "no call shows {code}");
    }
    secrets::assert_none_leaked();
}
