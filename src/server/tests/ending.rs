//! The end of a worker, and of one that is stuck.

use super::*;

const GET: &str = "GET /open HTTP/1.1\r\nHost: a\r\n\r\n";

/// Sends requests on `stream` until the answer to one says that the connection ends.
fn use_up(stream: &mut TcpStream) -> usize {
    for sent in 1.. {
        stream.write_all(GET.as_bytes()).unwrap();
        let answer = read_message(stream).expect("an answer");
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
        if field(&answer, "connection") == Some("close") {
            return sent;
        }
    }
    unreachable!("the range has no end")
}

#[test]
fn who_keeps_asking_is_told_that_its_connection_ends() {
    let upstream = Upstream::new(|mut stream, _| {
        while read_message(&mut stream).is_some() {
            stream.write_all(OK.as_bytes()).unwrap();
        }
    });
    let mut gateway = Gateway::with(upstream.address, |server, _| {
        server.workers = NonZeroUsize::new(2).unwrap();
    });
    let mut kept: Vec<TcpStream> = (0..4).map(|_| gateway.connect()).collect();
    for stream in &mut kept {
        stream.write_all(GET.as_bytes()).unwrap();
        read_message(stream).unwrap();
    }
    let running = gateway.running.take().unwrap();
    let drain = thread::spawn(move || running.drain(PATIENCE));
    let clients: Vec<_> = kept
        .into_iter()
        .map(|mut stream| {
            thread::spawn(move || {
                use_up(&mut stream);
                assert_eq!(read_all(stream), "");
            })
        })
        .collect();
    for client in clients {
        client.join().unwrap();
    }
    assert_eq!(drain.join().unwrap(), 0);
}

/// It has not said that its connection ends, so the client may go on.
#[test]
fn a_response_that_has_begun_does_not_cost_the_next_one() {
    let (release, held) = sync_channel::<()>(0);
    let held = Mutex::new(held);
    let upstream = Upstream::new(move |mut stream, _| {
        while read_message(&mut stream).is_some() {
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n").unwrap();
            held.lock().unwrap().recv().unwrap();
            stream.write_all(b"ok").unwrap();
        }
    });
    let mut gateway = Gateway::new(upstream.address);
    let mut kept = gateway.send(GET);
    let head = read_head(&mut kept).unwrap();
    assert_eq!(field(&head, "connection"), None, "{head}");
    // One that is answered without the upstream tells when the drain has begun.
    let mut probe = gateway.connect();
    let running = gateway.running.take().unwrap();
    let drain = thread::spawn(move || running.drain(PATIENCE));
    loop {
        probe.write_all(b"GET /nowhere HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
        let answer = read_message(&mut probe).expect("an answer");
        assert!(answer.starts_with("HTTP/1.1 404 "), "{answer}");
        if field(&answer, "connection") == Some("close") {
            break;
        }
    }
    release.send(()).unwrap();
    let mut body = [0; 2];
    kept.read_exact(&mut body).unwrap();
    kept.write_all(GET.as_bytes()).unwrap();
    release.send(()).unwrap();
    let answer = read_all(kept);
    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("ok"), "{answer}");
    assert_eq!(field(&answer, "connection"), Some("close"));
    assert_eq!(drain.join().unwrap(), 0);
}

#[test]
fn a_request_that_has_begun_is_waited_for() {
    let upstream = Upstream::answering(OK);
    let mut gateway = Gateway::new(upstream.address);
    let (begun, rest) = GET.split_at(GET.len() / 2);
    let mut slow = gateway.send(begun);
    let running = gateway.running.take().unwrap();
    let drain = thread::spawn(move || running.drain(PATIENCE));
    slow.write_all(rest.as_bytes()).unwrap();
    let answer = read_all(slow);
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    assert_eq!(field(&answer, "connection"), Some("close"));
    assert_eq!(drain.join().unwrap(), 0);
}

#[test]
fn what_waits_in_a_socket_that_is_handed_on_is_served_by_the_next() {
    let upstream = Upstream::answering(OK);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let start = || {
        let mut settings = settings(upstream.address);
        settings.server.listen = address;
        settings.server.workers = NonZeroUsize::new(2).unwrap();
        let inherited = Some(listener.try_clone().unwrap());
        Gateway::start_on(inherited, &settings, policies(10_000))
    };
    let mut gateway = start();
    for _ in 0..4 {
        let answer =
            gateway.ask_and_close("GET /open HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    }
    assert_eq!(gateway.running.take().unwrap().drain(PATIENCE), 0);
    let waiting: Vec<TcpStream> = (0..4).map(|_| gateway.send(GET)).collect();
    let next = start();
    for mut stream in waiting {
        let answer = read_message(&mut stream).expect("an answer");
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    }
    assert_eq!(next.address, address);
}

#[test]
fn a_worker_that_is_stuck_does_not_answer() {
    let upstream = Upstream::answering(OK);
    let gateway = Gateway::new(upstream.address);
    let mut pulse = gateway.running.as_ref().unwrap().pulse();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let mut answers =
        |time| runtime.block_on(async { tokio::time::timeout(time, pulse.ask()).await.is_ok() });
    assert!(answers(PATIENCE));
    let (release, held) = sync_channel::<()>(0);
    *gateway.keys.1.lock().unwrap() = Some(held);
    let stuck = gateway.send(&unknown_key());
    while gateway.keys.0.load(Ordering::SeqCst) == 0 {
        thread::yield_now();
    }
    assert!(!answers(SHORT), "it waits for a key, and everybody for it");
    release.send(()).unwrap();
    assert!(answers(PATIENCE));
    problem(&read_all(stuck), 401, "invalid_credential");
}
