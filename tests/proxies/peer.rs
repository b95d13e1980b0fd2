//! A real proxy with the snippet that is shipped for it, on loopback, in a directory of its own.

use std::fs::{self, File};
use std::io::Write as _;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use socket2::{Domain, Socket, Type};
use tempfile::TempDir;

use crate::support::http::{PATIENCE, Request, Response, parse, read_all};
use crate::support::tls::Authority;
use crate::support::until;

/// Where clients come from: the proxies, at 127.0.0.1, are trusted, and this is nobody.
pub(super) const CLIENT: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);

/// The proxies that latchkey knows the contracts of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Nginx,
    HaProxy,
    Caddy,
    Traefik,
    Envoy,
}

impl Kind {
    /// In the order of the table.
    pub(super) const ALL: [Self; 5] =
        [Self::Nginx, Self::HaProxy, Self::Caddy, Self::Traefik, Self::Envoy];

    /// As it writes itself.
    pub(super) fn title(self) -> &'static str {
        match self {
            Self::Nginx => "nginx",
            Self::HaProxy => "HAProxy",
            Self::Caddy => "Caddy",
            Self::Traefik => "Traefik",
            Self::Envoy => "Envoy",
        }
    }

    /// The contract's name, and the program's.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Nginx => "nginx",
            Self::Traefik => "traefik",
            Self::Caddy => "caddy",
            Self::HaProxy => "haproxy",
            Self::Envoy => "envoy",
        }
    }

    /// The binary, which `tests/run proxies` finds or installs.
    fn binary(self) -> PathBuf {
        let variable = format!("LATCHKEY_TEST_{}", self.name().to_uppercase());
        let path = std::env::var_os(&variable);
        path.unwrap_or_else(|| panic!("{variable} names no binary; `tests/run proxies` does"))
            .into()
    }
}

/// A running proxy; killed when dropped.
pub(super) struct Peer {
    child: Child,
    dir: TempDir,
    pub(super) address: SocketAddr,
    /// Where it speaks TLS, if it does.
    pub(super) secure: SocketAddr,
}

impl Peer {
    /// Starts `kind` in front of `api`, asking `latchkey`, with certificates of `authority` and
    /// every line switched on that its file offers; without an authority the file is as it is.
    pub(super) fn start(
        kind: Kind,
        latchkey: SocketAddr,
        api: SocketAddr,
        authority: Option<&Authority>,
    ) -> Self {
        Self::run(kind, |shipped, command| {
            let shipped = Shipped { latchkey, api, authority, ..shipped };
            match kind {
                Kind::Nginx => shipped.nginx(command),
                Kind::Traefik => shipped.traefik(command),
                Kind::Caddy => shipped.caddy(command),
                Kind::HaProxy => shipped.haproxy(command),
                Kind::Envoy => shipped.envoy(command),
            }
        })
    }

    /// Starts `kind` as `configure` says, and waits until it listens.
    pub(super) fn run(kind: Kind, configure: impl FnOnce(Shipped<'_>, &mut Command)) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let (address, secure) = (free_port(), free_port());
        let nowhere = SocketAddr::from(([127, 0, 0, 1], 9));
        let mut command = Command::new(kind.binary());
        let shipped = Shipped {
            dir: dir.path(),
            front: address,
            secure,
            latchkey: nowhere,
            api: nowhere,
            authority: None,
        };
        configure(shipped, &mut command);
        let log = File::create(dir.path().join("log")).expect("a log");
        let child = command
            .current_dir(dir.path())
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a second handle"))
            .stderr(log)
            .spawn()
            .unwrap_or_else(|e| panic!("{}: {e}", kind.binary().display()));
        let mut peer = Self { child, dir, address, secure };
        until(|| {
            if let Some(status) = peer.child.try_wait().expect("a child") {
                panic!("{kind:?} ended with {status}:\n{}", peer.last_words());
            }
            TcpStream::connect(address).ok()
        });
        peer
    }

    /// Sends a request from [`CLIENT`]; `None` if the answer is cut off or missing.
    pub(super) fn send(&self, request: &Request) -> Option<Response> {
        let mut answer = exchange_from(CLIENT, self.address, &request.bytes("api.example")).ok()?;
        if request.is_head() && announces_chunks(&answer) {
            // And sends none.
            answer.extend(b"0\r\n\r\n");
        }
        parse(&answer)
    }

    /// What the proxy wrote.
    pub(super) fn log(&self) -> String {
        let text = fs::read(self.dir.path().join("log")).unwrap_or_default();
        String::from_utf8_lossy(&text).into_owned()
    }

    /// The end of it.
    pub(super) fn last_words(&self) -> String {
        let log = self.log();
        let lines: Vec<&str> = log.lines().rev().take(10).collect();
        lines.into_iter().rev().collect::<Vec<_>>().join("\n")
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A connection from an address of the loopback network.
pub(super) fn connect_from(client: Ipv4Addr, address: SocketAddr) -> std::io::Result<TcpStream> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.bind(&SocketAddr::from((client, 0)).into())?;
    socket.connect(&address.into())?;
    let stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(PATIENCE))?;
    Ok(stream)
}

/// Sends `bytes` and returns everything that comes back.
pub(super) fn exchange_from(
    client: Ipv4Addr,
    address: SocketAddr,
    bytes: &[u8],
) -> std::io::Result<Vec<u8>> {
    let mut stream = connect_from(client, address)?;
    // Refused early, not all of it is taken: the answer still counts.
    let _ = stream.write_all(bytes);
    read_all(&mut stream)
}

fn announces_chunks(head: &[u8]) -> bool {
    let head = String::from_utf8_lossy(head).to_lowercase();
    head.ends_with("\r\n\r\n") && head.contains("\r\ntransfer-encoding: chunked\r\n")
}

fn free_port() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a loopback port");
    listener.local_addr().expect("an address")
}

/// The shipped files, with other ports.
pub(super) struct Shipped<'a> {
    pub(super) dir: &'a Path,
    pub(super) front: SocketAddr,
    secure: SocketAddr,
    latchkey: SocketAddr,
    api: SocketAddr,
    authority: Option<&'a Authority>,
}

impl Shipped<'_> {
    /// Writes `name` with its addresses and files replaced; every replacement has to find
    /// something. With an authority the lines that the file offers are switched on, and
    /// `only_then` is replaced too.
    pub(super) fn write(
        &self,
        name: &str,
        always: &[(&str, &str)],
        only_then: &[(&str, &str)],
    ) -> PathBuf {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging/proxies").join(name);
        let mut text = fs::read_to_string(&path).expect("a shipped file");
        if self.authority.is_some() {
            text = text.lines().map(switched_on).collect();
        }
        let more = if self.authority.is_some() { only_then } else { &[] };
        for (old, new) in always.iter().chain(more) {
            assert!(text.contains(old), "{name} holds no `{old}` any more");
            text = text.replace(old, new);
        }
        let path = self.dir.join(name);
        fs::write(&path, text).expect("a configuration file");
        path
    }

    /// A file of the authority's.
    fn file(&self, name: &str) -> String {
        self.authority.map(|a| a.path(name).display().to_string()).unwrap_or_default()
    }

    fn services(&self) -> [(&'static str, String); 2] {
        [("127.0.0.1:8080", self.latchkey.to_string()), ("127.0.0.1:9000", self.api.to_string())]
    }

    fn nginx(&self, command: &mut Command) {
        let [(old_latchkey, latchkey), (old_api, api)] = self.services();
        let listen = format!("listen {};", self.front);
        let snippet = self.write(
            "nginx.conf",
            &[
                ("listen 80;", &listen),
                (old_latchkey, &latchkey),
                (old_api, &api),
                ("proxy_read_timeout 10s;", "proxy_read_timeout 3s;"),
            ],
            &[
                ("listen 443 ", &format!("listen {} ", self.secure)),
                ("/etc/nginx/api.pem", &self.file("api.pem")),
                ("/etc/nginx/api.key", &self.file("api.key")),
            ],
        );
        let http = format!("include {};", snippet.display());
        self.nginx_main(&http, "", command);
    }

    /// The file around the shipped one.
    pub(super) fn nginx_main(&self, http: &str, beside: &str, command: &mut Command) {
        let dir = self.dir.display();
        let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .map(|kind| format!("{kind}_temp_path {dir}/{kind};\n"))
            .concat();
        let main = format!(
            "daemon off;\nmaster_process off;\npid {dir}/pid;\nerror_log stderr;\n\
             {beside}events {{}}\nhttp {{\naccess_log off;\n{temporary}{http}\n}}\n"
        );
        let path = self.dir.join("main.conf");
        fs::write(&path, main).expect("a configuration file");
        command.arg("-p").arg(self.dir).arg("-c").arg(path);
    }

    fn traefik(&self, command: &mut Command) {
        let [(old_latchkey, latchkey), (old_api, api)] = self.services();
        let dynamic = self.write(
            "traefik-latchkey.yml",
            &[(old_latchkey, &latchkey), (old_api, &api)],
            &[
                ("/etc/traefik/api.pem", &self.file("api.pem")),
                ("/etc/traefik/api.key", &self.file("api.key")),
            ],
        );
        let entry = format!("\"{}\"", self.front);
        let place = dynamic.display().to_string();
        let config = self.write(
            "traefik.yml",
            &[("\":80\"", &entry), ("/etc/traefik/traefik-latchkey.yml", &place)],
            &[("\":443\"", &format!("\"{}\"", self.secure))],
        );
        command.arg("--configfile").arg(config);
    }

    fn caddy(&self, command: &mut Command) {
        let [(old_latchkey, latchkey), (old_api, api)] = self.services();
        let site = |scheme: &str, at: SocketAddr| {
            format!("\n{scheme}://:{} {{\n\tbind 127.0.0.1\n", at.port())
        };
        let config = self.write(
            "Caddyfile",
            &[
                ("\n:80 {\n", &site("http", self.front)),
                (old_latchkey, &latchkey),
                (old_api, &api),
                ("response_header_timeout 10s", "response_header_timeout 3s"),
            ],
            &[
                ("\napi.example.com {\n", &site("https", self.secure)),
                ("/etc/caddy/api.pem", &self.file("api.pem")),
                ("/etc/caddy/api.key", &self.file("api.key")),
            ],
        );
        command
            .args(["run", "--adapter", "caddyfile", "--config"])
            .arg(config)
            .env("HOME", self.dir)
            .env("XDG_CONFIG_HOME", self.dir)
            .env("XDG_DATA_HOME", self.dir)
            .env("CADDY_ADMIN", format!("unix/{}/admin.sock", self.dir.display()));
    }

    fn haproxy(&self, command: &mut Command) {
        let [(old_latchkey, latchkey), (old_api, api)] = self.services();
        let lua = [("timeout_ms = 10000", "timeout_ms = 3000")];
        let lua = Shipped { authority: None, ..*self }.write("latchkey.lua", &lua, &[]);
        let lua = lua.display().to_string();
        let both = self.dir.join("api.pem");
        if self.authority.is_some() {
            let files = ["api.pem", "api.key"].map(|name| fs::read(self.file(name)));
            let files = files.map(|file| file.expect("a file of the authority's"));
            fs::write(&both, files.concat()).expect("a file");
        }
        let bind = format!("bind {}\n", self.front);
        let config = self.write(
            "haproxy.cfg",
            &[
                ("bind :80\n", &bind),
                ("/etc/haproxy/latchkey.lua", &lua),
                (old_latchkey, &latchkey),
                (old_api, &api),
            ],
            &[
                ("bind :443 ", &format!("bind {} ", self.secure)),
                ("/etc/haproxy/api.pem", &both.display().to_string()),
            ],
        );
        command.arg("-f").arg(config);
    }

    fn envoy(&self, command: &mut Command) {
        let port = |address: SocketAddr| format!("127.0.0.1, port_value: {} }}", address.port());
        let [(old_latchkey, latchkey), _] = self.services();
        let config = self.write(
            "envoy.yaml",
            &[
                ("0.0.0.0, port_value: 80 }", &port(self.front)),
                ("127.0.0.1, port_value: 8080 }", &port(self.latchkey)),
                ("127.0.0.1, port_value: 9000 }", &port(self.api)),
                (old_latchkey, &latchkey),
                ("timeout: 10s", "timeout: 3s"),
            ],
            &[
                ("0.0.0.0, port_value: 443 }", &port(self.secure)),
                ("/etc/envoy/api.pem", &self.file("api.pem")),
                ("/etc/envoy/api.key", &self.file("api.key")),
            ],
        );
        command
            .args(["--disable-hot-restart", "--concurrency", "1", "-l", "info", "-c"])
            .arg(config);
    }
}

/// A line that is commented out without a blank is one to switch on.
fn switched_on(line: &str) -> String {
    let rest = line.trim_start();
    let offered = rest.strip_prefix('#').filter(|l| l.starts_with(|c: char| !c.is_whitespace()));
    match offered {
        Some(offered) => format!("{}{offered}\n", &line[..line.len() - rest.len()]),
        None => format!("{line}\n"),
    }
}
