//! What connections cost that say nothing: memory, and nobody else's time.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use socket2::{Domain, Socket, Type};

use crate::support::gateway::Site;
use crate::support::http::{PATIENCE, get, parse};
use crate::support::upstream::{Behaviour, Upstream};

const CONNECTIONS: usize = 10_000;
/// For all of them.
const BYTES_MAX: usize = 150_000_000;
/// Of one address: more would meet the bound, which stays at its default.
const PER_ADDRESS: usize = 1000;
/// Files that the other tests, and the gateway besides its connections, may have open.
const FILES_BESIDE: usize = 3000;
const WHOLE: &str = "GET /api/search/x HTTP/1.1\r\nHost: a.example\r\nUser-Agent: a client\r\n\r\n";

/// How many connections this process and its children may hold at one end each.
fn possible() -> usize {
    let limit = getrlimit(Resource::Nofile);
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
    let granted = getrlimit(Resource::Nofile).current.map_or(usize::MAX, |n| n.try_into().unwrap());
    CONNECTIONS.min(granted.saturating_sub(FILES_BESIDE))
}

/// The connection with this number, from an address of its thousand.
fn open(number: usize, to: SocketAddr) -> TcpStream {
    let source = [127, 0, 1, u8::try_from(1 + number / PER_ADDRESS).unwrap()];
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from((source, 0)).into()).unwrap();
    socket.connect(&to.into()).unwrap_or_else(|error| panic!("connection {number}: {error}"));
    let stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// One request and its answer; the connection stays.
fn ask(stream: &mut TcpStream) {
    stream.write_all(WHOLE.as_bytes()).unwrap();
    let mut bytes = Vec::new();
    loop {
        let mut buffer = [0; 4096];
        let n = stream.read(&mut buffer).unwrap();
        assert!(n > 0, "ended after {:?}", String::from_utf8_lossy(&bytes));
        bytes.extend_from_slice(&buffer[..n]);
        if let Some(answer) = parse(&bytes) {
            assert_eq!(answer.status, 200, "{answer:?}");
            return;
        }
    }
}

/// Opens the connections, a third of which say nothing, a third half a head, and the rest a whole
/// request.
fn crowd(count: usize, to: SocketAddr) -> Vec<TcpStream> {
    let one = |number: usize| {
        let mut stream = open(number, to);
        match number % 3 {
            0 => {}
            1 => stream.write_all(&WHOLE.as_bytes()[..WHOLE.len() / 2]).unwrap(),
            _ => ask(&mut stream),
        }
        stream
    };
    (0..count).map(one).collect()
}

#[test]
fn ten_thousand_idle_connections_cost_little_and_keep_nobody_waiting() {
    let upstream = Upstream::start(Behaviour::Fields(""));
    let site = Site::new(
        Some(&upstream),
        "[server]\nconnections_max = 12000\nfirst_byte_timeout = \"1h\"\nhead_timeout = \"1h\"\n\
         idle_timeout = \"1h\"\n[log]\nlevel = \"warn\"\n[[limits]]\nname = \"all\"\n\
         paths = [\"/*\"]\nkey = \"address\"\nlimit = 100000\nwindow = \"1s\"\n",
    );
    let gateway = site.start_with(&[("LATCHKEY_LOG__LEVEL", "warn,latchkey::cli=info")]);
    // What a first request sets up is not what a connection costs.
    ask(&mut open(CONNECTIONS, gateway.data));
    let before = gateway.resident_kib();
    let count = possible();
    let mut idle = crowd(count, gateway.data);
    // Whoever connected before it is accepted before it, by the same worker; there are two.
    for _ in 0..8 {
        assert_eq!(gateway.send(&get("/api/search/x")).status, 200);
    }
    let after = gateway.resident_kib();
    let held = gateway.metrics();
    let held = held.lines().find_map(|line| line.strip_prefix("latchkey_connections "));
    assert_eq!(held.unwrap().parse::<usize>().unwrap(), count);
    let bytes = (after - before) * 1024;
    let max = BYTES_MAX / CONNECTIONS * count;
    assert!(
        bytes < max,
        "{count} idle connections cost {bytes} bytes, {} each; at most {max}",
        bytes / count
    );
    // All of them are still served.
    for (number, stream) in idle.iter_mut().enumerate().step_by(500) {
        if number % 3 != 1 {
            ask(stream);
        }
    }
    assert_eq!(
        count,
        CONNECTIONS,
        "the limit of open files (`ulimit -Hn`) allows only {count} of {CONNECTIONS} connections, \
         which stayed within their share; raise it to {} to see all",
        CONNECTIONS + FILES_BESIDE
    );
}
