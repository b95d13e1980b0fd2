//! Telling the service manager: one datagram per message, to the socket it named.
//!
//! A message that cannot be sent is logged and lost: what is served matters more than who knows.

use std::ffi::{OsStr, OsString};
use std::fmt::Write as _;
use std::io;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use crate::clock;

/// How long a manager that reads nothing may hold up who tells it something.
const WRITE_TIMEOUT: Duration = Duration::from_secs(2);

/// One thing the manager is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::cli) enum Line {
    /// Everything serves: at the start, and after a reload.
    Ready,
    /// The configuration is being read again.
    Reloading,
    /// The end has begun.
    Stopping,
    /// The process is well.
    Watchdog,
    /// What there is to say, in one line.
    Status(String),
    /// What is under way may take so long from now.
    Extend(Duration),
}

/// The service manager, or nobody.
#[derive(Debug)]
pub(in crate::cli) struct Manager {
    told: Option<(UnixDatagram, SocketAddr)>,
    watchdog: Option<Duration>,
}

impl Manager {
    /// The manager that started this process, by its environment.
    pub(in crate::cli) fn of_process() -> Self {
        let own = std::process::id().to_string();
        let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
        // Meant for another process: a wrapper that has started this one.
        let meant = variable("WATCHDOG_PID").is_none_or(|pid| pid == own.as_str());
        let watchdog = variable("WATCHDOG_USEC").filter(|_| meant);
        Self::new(variable("NOTIFY_SOCKET"), watchdog.as_deref())
    }

    fn new(socket: Option<OsString>, watchdog: Option<&OsStr>) -> Self {
        let opened = socket.map(|name| {
            open(&name).map_err(|error| {
                let name = name.display();
                tracing::warn!(%name, %error, "NOTIFY_SOCKET cannot be used: nobody is told");
            })
        });
        let watchdog = watchdog.and_then(|usec| {
            let parsed = usec.to_str().and_then(|usec| usec.parse().ok()).filter(|usec| *usec > 0);
            if parsed.is_none() {
                tracing::warn!(?usec, "WATCHDOG_USEC is no number of microseconds: no watchdog");
            }
            parsed.map(Duration::from_micros)
        });
        Self { told: opened.and_then(Result::ok), watchdog }
    }

    /// Between two signs of life, half of the time after which the manager gives the process up;
    /// `None`: it does not wait for any.
    pub(in crate::cli) fn pause(&self) -> Option<Duration> {
        self.told.as_ref()?;
        self.watchdog.map(|timeout| timeout / 2)
    }

    /// Whether there is anybody to tell.
    pub(in crate::cli) fn is_there(&self) -> bool {
        self.told.is_some()
    }

    /// Tells all of `lines` at once.
    pub(in crate::cli) fn tell(&self, lines: &[Line]) {
        let Some((socket, address)) = &self.told else {
            return;
        };
        if let Err(error) = socket.send_to_addr(message(lines).as_bytes(), address) {
            tracing::warn!(%error, ?lines, "the service manager could not be told");
        }
    }
}

fn open(name: &OsStr) -> io::Result<(UnixDatagram, SocketAddr)> {
    let address = match name.as_bytes() {
        [b'@', rest @ ..] => SocketAddr::from_abstract_name(rest)?,
        [b'/', ..] => SocketAddr::from_pathname(name)?,
        _ => return Err(io::Error::other("it begins with neither / nor @")),
    };
    let socket = UnixDatagram::unbound()?;
    socket.set_write_timeout(Some(WRITE_TIMEOUT))?;
    Ok((socket, address))
}

fn message(lines: &[Line]) -> String {
    let mut text = String::new();
    for line in lines {
        // Writing to a string does not fail.
        let _ = match line {
            Line::Ready => writeln!(text, "READY=1"),
            // The time tells this reload from one that was asked for later.
            Line::Reloading => {
                writeln!(text, "RELOADING=1\nMONOTONIC_USEC={}", clock::since_boot().as_micros())
            }
            Line::Stopping => writeln!(text, "STOPPING=1"),
            Line::Watchdog => writeln!(text, "WATCHDOG=1"),
            Line::Status(status) => {
                writeln!(text, "STATUS={}", status.replace(char::is_control, " "))
            }
            Line::Extend(time) => writeln!(text, "EXTEND_TIMEOUT_USEC={}", time.as_micros()),
        };
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn received(socket: &UnixDatagram) -> String {
        let mut buffer = [0; 4096];
        socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let n = socket.recv(&mut buffer).unwrap();
        String::from_utf8(buffer[..n].to_vec()).unwrap()
    }

    #[test]
    fn sockets_with_a_path_and_without() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("notify");
        let by_path = UnixDatagram::bind(&path).unwrap();
        let name = format!("latchkey-test-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        let by_name = UnixDatagram::bind_addr(&address).unwrap();
        let status = || Line::Status("two\nlines".to_owned());
        for (socket, variable) in [(by_path, path.into()), (by_name, format!("@{name}").into())] {
            let manager = Manager::new(Some(variable), None);
            manager.tell(&[Line::Ready, status()]);
            assert_eq!(received(&socket), "READY=1\nSTATUS=two lines\n");
            manager.tell(&[Line::Stopping, Line::Extend(Duration::from_secs(3))]);
            assert_eq!(received(&socket), "STOPPING=1\nEXTEND_TIMEOUT_USEC=3000000\n");
            let before = clock::since_boot().as_micros();
            manager.tell(&[Line::Reloading]);
            let told = received(&socket);
            let at = told.strip_prefix("RELOADING=1\nMONOTONIC_USEC=").unwrap();
            let at: u128 = at.trim_end().parse().unwrap();
            assert!((before..=clock::since_boot().as_micros()).contains(&at), "{told}");
        }
    }

    #[test]
    fn the_watchdog_is_told_twice_as_often_as_it_asks() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("notify");
        let _socket = UnixDatagram::bind(&path).unwrap();
        let pause = |socket: Option<&OsStr>, usec: &str| {
            Manager::new(socket.map(OsStr::to_owned), Some(usec.as_ref())).pause()
        };
        let there = Some(path.as_os_str());
        assert_eq!(pause(there, "30000000"), Some(Duration::from_secs(15)));
        for usec in ["0", "", "-1", "30s"] {
            assert_eq!(pause(there, usec), None, "{usec:?}");
        }
        assert_eq!(pause(None, "30000000"), None, "nobody to tell");
    }

    #[test]
    fn nobody_is_told_where_nobody_is() {
        for socket in [None, Some("relative".into()), Some("/nowhere/notify".into())] {
            Manager::new(socket, None).tell(&[Line::Ready]);
        }
    }
}
