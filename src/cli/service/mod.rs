//! The service manager: what it is told (`sd_notify(3)`), and the sockets it hands over
//! (`sd_listen_fds(3)`).
//!
//! systemd's protocols, and those of whoever speaks them too. Without a manager nothing is told
//! and nothing is handed over, and all else is the same. The manager's units are in packaging.

mod manager;
mod sockets;
mod standing;

pub(super) use manager::{Line, Manager};
pub(super) use sockets::{Inherited, Sockets};
pub(super) use standing::{Standing, attend};
