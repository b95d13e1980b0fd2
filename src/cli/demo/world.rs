//! What the demo stands up: store, service, identity provider, gateway, credentials.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tempfile::TempDir;

use super::calls::{self, Call, Cast, Section};
use super::loopback::Loopback;
use super::provider::{AUDIENCE, LIFETIME_S, Provider, SigningKey};
use super::{rehearsal, upstream};
use crate::admin::operations::{keys, operators, shops, widget_tokens};
use crate::admin::{Caller, Node, OperationError};
use crate::cli::exit::{Exit, Failure};
use crate::cli::gateway::Gateway;
use crate::cli::service::Sockets;
use crate::cli::start;
use crate::clock::{Clock, ManualClock, SystemClock, Timestamp};
use crate::config::{Config, ConfigFile, Override, Sources};
use crate::id::ShopId;
use crate::jwks::RefreshReason;
use crate::secret::SecretText;
use crate::store::Role;

/// Limits and the like; addresses and paths are added as flags would add them.
const CONFIG: &str = include_str!("demo.toml");

/// Who signs in to the dashboard.
pub(super) const OPERATOR: &str = "demo";

/// The demo, running.
pub(super) struct World {
    /// What the calls carry.
    pub(super) cast: Cast,
    gateway: Gateway,
    provider: Provider,
    socket: PathBuf,
    password: SecretText,
    _upstream: Loopback,
    _directory: TempDir,
}

impl World {
    /// Stands everything up.
    pub(super) async fn start(listen: SocketAddr, admin: SocketAddr) -> Result<Self, Failure> {
        let failed = |error: &dyn std::fmt::Display| Failure::new(Exit::Failure, error.to_string());
        let directory = tempfile::Builder::new().prefix("latchkey-demo-").tempdir();
        let directory = directory.map_err(|e| failed(&e))?;
        let upstream = Loopback::serve(upstream::echo).await.map_err(|e| failed(&e))?;
        let provider = Provider::start().await.map_err(|e| failed(&e))?;
        let flags = [
            ("server.listen", listen.to_string()),
            ("server.workers", "2".to_owned()),
            ("admin.listen", admin.to_string()),
            ("store.path", directory.path().join("latchkey.redb").display().to_string()),
            ("upstreams.default.url", format!("http://{}", upstream.address)),
        ];
        let config = start::load(&sources(&provider, flags))?;
        let socket = config.admin.socket.clone();
        let now = SystemClock::new().now().unix;
        let made = config.clone();
        let shops = tokio::task::spawn_blocking(move || yesterday(made, now)).await;
        let credentials = shops.map_err(|e| failed(&e))??;
        let gateway = Gateway::start(config, Sockets::default()).await?;
        let cast = cast(credentials, &provider, gateway.node(), now)?;
        let node = Arc::clone(gateway.node());
        let password = tokio::task::spawn_blocking(move || make_operator(&node)).await;
        let password = password.map_err(|e| failed(&e))??;
        let world = Self {
            cast,
            gateway,
            provider,
            socket,
            password,
            _upstream: upstream,
            _directory: directory,
        };
        world.fetch_keys().await;
        world.use_up().await?;
        Ok(world)
    }

    /// Stops everything; the temporary directory goes with it.
    pub(super) async fn stop(self) {
        self.gateway.stop().await;
    }

    /// Where callers connect from this machine.
    pub(super) fn data_address(&self) -> SocketAddr {
        start::reachable(self.gateway.data_address())
    }

    /// The same, as a URL.
    pub(super) fn base(&self) -> String {
        format!("http://{}", self.data_address())
    }

    /// Where the admin plane listens.
    pub(super) fn admin_address(&self) -> SocketAddr {
        self.gateway.admin_address()
    }

    /// The password of the one operator, [`OPERATOR`], for the dashboard.
    pub(super) fn password(&self) -> &str {
        self.password.expose()
    }

    /// The unix socket of the command line.
    pub(super) fn socket(&self) -> &std::path::Path {
        &self.socket
    }

    /// The identity provider's `iss`.
    pub(super) fn issuer(&self) -> &str {
        self.provider.issuer()
    }

    /// Waits for the identity provider's keys, so that the first JWT is not told to come back.
    async fn fetch_keys(&self) {
        let node = self.gateway.node();
        let keeper = loop {
            match node.jwks() {
                Some(keeper) => break keeper,
                // It starts with the gateway's background work, in a moment.
                None => tokio::task::yield_now().await,
            }
        };
        for issuer in &node.config.load().policies.issuers {
            if let Err(error) = keeper.refresh(&issuer.name, RefreshReason::Operator).await {
                tracing::error!(%error, "the demo's identity provider gave no keys");
            }
        }
    }

    /// Uses the limit of [`calls::USED_UP`] up, so that every call the list shows is over it.
    async fn use_up(&self) -> Result<(), Failure> {
        let call = Call {
            section: Section::Anonymous,
            status: 200,
            code: "ok",
            why: "",
            method: http::Method::GET,
            target: calls::USED_UP,
            headers: Vec::new(),
            body: None,
        };
        let made = rehearsal::make(self, &call).await;
        made.map(drop).map_err(|error| {
            Failure::new(Exit::Failure, format!("the demo's own gateway did not answer: {error}"))
        })
    }
}

fn sources<const N: usize>(provider: &Provider, flags: [(&str, String); N]) -> Sources {
    let issuer = provider.issuer();
    let text = format!(
        "{CONFIG}\n[[issuers]]\nname = \"demo\"\nissuer = \"{issuer}\"\n\
         audiences = [\"{AUDIENCE}\"]\ndiscovery = true\nalgorithms = [\"ES256\"]\n"
    );
    let set = |(key, value): (&str, String)| {
        let key = key.to_owned();
        Override { flag: "demo".into(), key, value }
    };
    Sources {
        file: ConfigFile::Inline { name: "demo".into(), text },
        // Not this process's: the demo is the same on every machine.
        environment: std::collections::BTreeMap::new(),
        overrides: flags.into_iter().map(set).collect(),
    }
}

/// What is made before the gateway starts.
struct Credentials {
    demo: ShopId,
    key: String,
    other_key: String,
    expired_token: String,
}

/// Opens the store two days ago and makes shops, keys and a widget token, whose time is therefore
/// over: a real token, really expired.
fn yesterday(config: Config, now: Timestamp) -> Result<Credentials, Failure> {
    let then = now - Duration::from_secs(2 * 24 * 3600);
    let clock: Arc<dyn Clock> = Arc::new(ManualClock::at(then));
    let node = start::open_node_at(config, clock)?;
    let demo = make_shop(&node, "demo", calls::SHOP_URL)?;
    let other = make_shop(&node, "other", "https://other.example")?;
    Ok(Credentials {
        key: make_key(&node, demo)?,
        other_key: make_key(&node, other)?,
        expired_token: issue(&node, demo, &["search"])?,
        demo,
    })
}

fn cast(
    made: Credentials,
    provider: &Provider,
    node: &Node,
    now: Timestamp,
) -> Result<Cast, Failure> {
    let failed = |error: &dyn std::fmt::Display| Failure::new(Exit::Failure, error.to_string());
    let tomorrow = now + Duration::from_secs(LIFETIME_S);
    let last_week = now - Duration::from_secs(7 * 24 * 3600);
    let stranger = SigningKey::generate().map_err(|e| failed(&e))?;
    let sign = |expires_at| provider.sign("ada", expires_at).map_err(|e| failed(&e));
    let forged = stranger.sign(provider.issuer(), "ada", tomorrow);
    Ok(Cast {
        token: issue(node, made.demo, &[])?,
        search_token: issue(node, made.demo, &["search"])?,
        jwt: sign(tomorrow)?,
        expired_jwt: sign(last_week)?,
        forged_jwt: forged.map_err(|e| failed(&e))?,
        key: made.key,
        other_key: made.other_key,
        expired_token: made.expired_token,
    })
}

fn make_shop(node: &Node, id: &str, url: &str) -> Result<ShopId, Failure> {
    let id = ShopId::parse(id).map_err(|e| Failure::new(Exit::Failure, e.to_string()))?;
    let fields = shops::ShopFields {
        name: format!("Shop {id}"),
        url: url.to_owned(),
        widget_origins: Vec::new(),
        enabled: true,
    };
    shops::create(node, &Caller::in_process(), id, fields, None)
        .map_err(|e| operation_failure(&e))?;
    Ok(id)
}

/// Makes the operator that signs in to the dashboard: its password.
fn make_operator(node: &Node) -> Result<SecretText, Failure> {
    let password = operators::generate_password(node.entropy.as_ref());
    let password = password.map_err(|e| operation_failure(&e.into()))?;
    let name = OPERATOR.to_owned();
    let fields = operators::OperatorFields { name, role: Role::Owner, shops: Vec::new() };
    operators::create(node, &Caller::in_process(), &fields, Some(&password), None)
        .map_err(|e| operation_failure(&e))?;
    Ok(password)
}

fn make_key(node: &Node, shop: ShopId) -> Result<String, Failure> {
    let fields =
        keys::KeyFields { name: "demo".to_owned(), expires_at: None, networks: Vec::new() };
    let created = keys::create(node, &Caller::in_process(), shop, fields, None)
        .map_err(|e| operation_failure(&e))?;
    made(created.secret)
}

fn made(secret: Option<SecretText>) -> Result<String, Failure> {
    let text = secret.map(|secret| secret.expose().to_owned());
    text.ok_or_else(|| Failure::new(Exit::Failure, "a new credential came without its secret"))
}

fn issue(node: &Node, shop: ShopId, scopes: &[&str]) -> Result<String, Failure> {
    let request = widget_tokens::IssueRequest {
        shop,
        scopes: scopes.iter().map(|&s| s.to_owned()).collect(),
        lifetime: None,
        issued_by: "demo".to_owned(),
        authority: None,
        idempotency: None,
    };
    let issued = widget_tokens::issue(node, &Caller::in_process(), request)
        .map_err(|e| operation_failure(&e))?;
    made(issued.secret)
}

fn operation_failure(error: &OperationError) -> Failure {
    Failure::new(Exit::Failure, format!("the demo could not be set up: {error}"))
}
