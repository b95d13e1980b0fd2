//! `latchkey demo`: everything to see, nothing to install, nothing left behind.
//!
//! A real gateway on a temporary store, in front of a service that echoes what reaches it, with an
//! identity provider of its own, all on loopback. What is printed is a list of calls, each a curl
//! line under the answer it gets.

mod calls;
mod loopback;
mod provider;
mod rehearsal;
mod upstream;
mod world;

use std::net::{Ipv4Addr, SocketAddr};

use super::args::DemoArgs;
use super::exit::{Exit, Failure};
use super::output::Output;
use super::start;
use crate::config::{LogConfig, LogFormat};

use self::calls::{Call, Section};
use self::world::{OPERATOR, World};

/// Where callers connect, unless that port is taken.
const DATA: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 8080);

/// Where the admin plane listens, unless that port is taken.
const ADMIN: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 8081);

/// Runs it.
pub(super) fn run(args: &DemoArgs, output: &mut Output) -> Result<(), Failure> {
    // Refusals are logged as warnings; here they are the show.
    let log = LogConfig::new("error", LogFormat::Text);
    crate::logging::init(&log).map_err(|e| Failure::new(Exit::Failure, e.to_string()))?;
    let (listen, admin) = match args.listen {
        // Whoever wants any port wants no fixed one.
        Some(address) if address.port() == 0 => (address, SocketAddr::new(ADMIN.ip(), 0)),
        Some(address) => (address, free(ADMIN)),
        None => (free(DATA), free(ADMIN)),
    };
    let runtime = start::runtime()?;
    runtime.block_on(async {
        let world = World::start(listen, admin).await?;
        let shown = if args.check {
            rehearsal::run(&world, output).await
        } else {
            show(&world, output).await
        };
        world.stop().await;
        shown
    })
}

/// `preferred`, or any port if that one is taken.
fn free(preferred: SocketAddr) -> SocketAddr {
    match start::ensure_free("demo", preferred) {
        Ok(()) => preferred,
        Err(_) => SocketAddr::new(preferred.ip(), 0),
    }
}

/// Prints the list, and serves until a signal.
async fn show(world: &World, output: &mut Output) -> Result<(), Failure> {
    output.text(&introduction(world))?;
    let calls = calls::all(&world.cast);
    for section in Section::ALL {
        output.line(&format!("## {}\n", section.heading()))?;
        for call in calls.iter().filter(|c| c.section == section) {
            output.line(&lines(call, &world.base()))?;
        }
    }
    output.line("Ctrl-C stops it; nothing is left behind.")?;
    super::serve::stop_signal().await
}

/// A call's two lines, and an empty one.
fn lines(call: &Call, base: &str) -> String {
    format!("{}\n{}\n", call.expectation(), call.curl(base))
}

fn introduction(world: &World) -> String {
    format!(
        "latchkey demo: a gateway at {}, in front of a service that answers with what reached it.\n\
         Shops demo ({}) and other; an identity provider at {}.\n\
         Dashboard: http://{}/ (sign in as {} with the password {})\n\
         Admin API, metrics and health beside it: GET /metrics, /readyz, /api/v1/openapi.json\n\
         Command line: latchkey --socket {} shop list\n\n\
         Paste any line into another terminal. Above it stands the answer it gets.\n\n",
        world.base(),
        calls::SHOP_URL,
        world.issuer(),
        world.admin_address(),
        OPERATOR,
        world.password(),
        world.socket().display(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::output::Format;
    use crate::cli::output::tests::Printed;

    #[test]
    fn every_call_gets_its_printed_answer_and_gets_it_again() {
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let printed = Printed::default();
        let mut output = printed.output(Format::Table);
        let runtime = start::runtime().unwrap();
        let result = runtime.block_on(async {
            let world = World::start(any, any).await?;
            rehearsal::run(&world, &mut output).await?;
            rehearsal::run(&world, &mut output).await?;
            world.stop().await;
            Ok::<_, Failure>(())
        });
        result.unwrap_or_else(|failure| panic!("{failure}\n{}", printed.text()));
        assert!(!printed.text().contains("FAILED"), "{}", printed.text());
    }
}
